"""The doctor: each rule finds the mistake, and stays silent about the code that is right."""

import ast
import copy
import doctest
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

import gatewise
from gatewise.cli import main
from gatewise.errors import ArgumentError, DataError
from gatewise.insight.doctor.files import paths_of, read
from gatewise.insight.doctor.findings import CODES, Finding, Findings
from gatewise.insight.doctor.live import doctor
from gatewise.insight.doctor.source import examine, visit

ROOT = Path(__file__).parents[1]

HEAD = """\
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
"""


@pytest.fixture
def examined(tmp_path):
    """Examines code after the usual imports."""

    def examine_code(code, head=HEAD):
        path = tmp_path / "code.py"
        path.write_text(head + dedent(code))
        return examine(read(path))

    return examine_code


def model(made, forward, head="class Model(nn.Module):"):
    """A module of which only one line of __init__ and the body of forward matter."""
    body = "\n".join(f"        {line}" for line in dedent(forward).strip().splitlines())
    return (
        f"{head}\n    def __init__(self):\n        super().__init__()\n        {made}\n"
        f"        self.fc = nn.Linear(8, 2)\n\n    def forward(self, x, lengths=None):\n{body}\n"
    )


# --- source: what is found ------------------------------------------------------------------------------------

BOTH = "self.lstm = nn.LSTM(3, 4, batch_first=True, bidirectional=True)"

FOUND = {
    "named sizes, no batch_first": (
        "batch-and-time",
        """
        batch_size, seq_len, width = 8, 20, 32
        x = torch.randn(size=[batch_size, seq_len, width])
        lstm = nn.LSTM(width, 16)
        output, (h_n, c_n) = lstm(x)
        """,
        "lstm = nn.LSTM(width, 16, batch_first=True)",
    ),
    "named sizes, batch_first": (
        "batch-and-time",
        """
        rnn = nn.GRU(3, 4, batch_first=True)
        rnn(torch.zeros(T, B, 3))
        """,
        "rnn(torch.zeros(T, B, 3).transpose(0, 1))",
    ),
    "the shape is taken apart": (
        "batch-and-time",
        model("self.lstm = nn.LSTM(3, 4)", "B, T, _ = x.shape\nreturn self.lstm(x)"),
        "self.lstm = nn.LSTM(3, 4, batch_first=True)",
    ),
    "the batch is axis 0": (
        "batch-and-time",
        model(
            "self.lstm = nn.LSTM(3, 4)", "batch_size = x.size(0)\nh = torch.zeros(1, batch_size, 4)\nself.lstm(x, h)"
        ),
        "self.lstm = nn.LSTM(3, 4, batch_first=True)",
    ),
    "a view": (
        "batch-and-time",
        model("self.lstm = nn.LSTM(3, 4)", "return self.lstm(x.view(self.batch_size, self.seq_len, -1))"),
        "self.lstm = nn.LSTM(3, 4, batch_first=True)",
    ),
    "padded the other way": (
        "batch-and-time",
        """
        rnn = nn.RNN(3, 4, 1, "tanh", True, True)
        x = pad_sequence(samples)
        rnn(x)
        """,
        "rnn(x.transpose(0, 1))",
    ),
    "the last row for the last step": (
        "batch-and-time",
        model("self.lstm = nn.LSTM(3, 4)", "out, _ = self.lstm(x)\nreturn self.fc(out[:, -1, :])"),
        "self.lstm = nn.LSTM(3, 4, batch_first=True)",
    ),
    "the last step for the last row": (
        "batch-and-time",
        model("self.lstm = nn.LSTM(3, 4, batch_first=True)", "out, _ = self.lstm(x)\nreturn self.fc(out[-1])"),
        "return self.fc(out[:, -1])",
    ),
    "both directions": (
        "last-of-bidirectional",
        model(BOTH, "out, (h_n, _) = self.lstm(x)\nreturn self.fc(out[:, -1, :])  # the last"),
        "return self.fc(torch.cat([h_n[-2], h_n[-1]], dim=-1))",
    ),
    "both directions by position": (
        "last-of-bidirectional",
        model("self.lstm = nn.LSTM(3, 4, 1, True, True, 0.0, True).to(d)", "out = self.lstm(x)[0]\nreturn out[:, -1]"),
        "output, (h_n, _) = self.lstm(x)\nreturn torch.cat([h_n[-2], h_n[-1]], dim=-1)",
    ),
    "both directions, time first": (
        "last-of-bidirectional",
        """
        gru = nn.GRU(3, 4, bidirectional=True)
        out, h = gru(x)
        score = out[-1].mean()
        """,
        "score = torch.cat([h[-2], h[-1]], dim=-1).mean()",
    ),
    "in either branch": (
        "last-of-bidirectional",
        model(BOTH, "out, hidden = self.lstm(x)\nif self.big:\n    y = out[:, -1]\nelse:\n    y = 0\nreturn y"),
        "y = torch.cat([hidden[0][-2], hidden[0][-1]], dim=-1)",
    ),
    "padding is read": (
        "last-of-padded",
        """
        lstm = nn.LSTM(3, 4, batch_first=True)
        x = pad_sequence(samples, batch_first=True)
        output, (h_n, c_n) = lstm(x)
        last = output[:, -1]
        """,
        "packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)\n"
        "output, (h_n, c_n) = lstm(packed)\nlast = h_n[-1]",
    ),
    "padding is put back": (
        "last-of-padded",
        model(
            "self.gru = nn.GRU(3, 4, batch_first=True)",
            """
            packed = pack_padded_sequence(x, lengths, batch_first=True)
            out, h_n = self.gru(packed)
            out, _ = pad_packed_sequence(out, batch_first=True)
            return self.fc(out[:, -1])
            """,
        ),
        "return self.fc(h_n[-1])",
    ),
    "packed elsewhere": (
        "last-of-padded",
        model(
            "self.lstm = nn.LSTM(3, 4, batch_first=True)",
            "x, hid = self.lstm(x)\nx, _ = pad_packed_sequence(x, batch_first=True)\nx = x[:, -1]\nreturn self.fc(x)",
        ),
        "x = hid[0][-1]",
    ),
    "gates by name": (
        "gate-order",
        "lstm.weight_ih_l0.data = torch.cat([W_f, W_i, W_c, W_o])",
        "lstm.weight_ih_l0.data = torch.cat([W_i, W_f, W_c, W_o])",
    ),
    "gates by word": (
        "gate-order",
        "with torch.no_grad():\n    lstm.bias_hh_l1.copy_(torch.cat((b.input, b.forget, b.output, b.cell), 0))",
        "lstm.bias_hh_l1.copy_(torch.cat((b.input, b.forget, b.cell, b.output), 0))",
    ),
    "gates by comment": (
        "gate-order",
        """
        cell = nn.LSTMCell(2, 1)
        cell.weight_ih.data = torch.tensor([
            [1.0, 2.0],  # the forget gate
            [3.0, 4.0],  # the input gate
            [5.0, 6.0],  # the cell
            [7.0, 8.0],  # the output gate
        ])
        """,
        "cell.weight_ih.data = torch.tensor([[3.0, 4.0], [1.0, 2.0], [5.0, 6.0], [7.0, 8.0]])"
        "  # if the comments are right",
    ),
    "chunks by name": (
        "gate-order",
        "gates = x @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + h @ lstm.weight_hh_l0.T + lstm.bias_hh_l0\n"
        "i_t, f_t, o_t, g_t = gates.chunk(4, dim=-1)",
        "i_t, f_t, g_t, o_t = gates.chunk(4, dim=-1)",
    ),
    "chunks by number": (
        "gate-order",
        """
        parts = torch.split(lstm.weight_hh_l0, 8)
        U_i = parts[0]
        U_o = parts[1]
        U_f = parts[2]
        U_c = parts[3]
        """,
        "U_f = parts[1]",
    ),
    "one bias of two": (
        "lost-bias",
        """
        W = torch.split(lstm.weight_ih_l0, 10)
        U = torch.split(lstm.weight_hh_l0.T, 10, dim=-1)
        b = torch.split(lstm.bias_hh_l0, 10)
        """,
        "lstm.bias_ih_l0 + lstm.bias_hh_l0",
    ),
    "one bias copied": (
        "lost-bias",
        """
        def copy_into(own, layer):
            own.W.copy_(layer.weight_ih_l0)
            own.U.copy_(layer.weight_hh_l0)
            own.b.copy_(layer.bias_ih_l0)
        """,
        "layer.bias_ih_l0 + layer.bias_hh_l0",
    ),
    "a table": (
        "embedding-not-a-parameter",
        model("self.W = nn.init.xavier_uniform_(torch.empty(10, 5))", "return self.W[x]"),
        "self.W = nn.Parameter(nn.init.xavier_uniform_(torch.empty(10, 5)))",
    ),
    "a product": (
        "embedding-not-a-parameter",
        model("self.out_weight = torch.randn(4, 5, requires_grad=True) * 0.1", "return x @ self.out_weight.T"),
        "self.out_weight = nn.Parameter(torch.randn(4, 5, requires_grad=True) * 0.1)",
    ),
    "a linear function": (
        "embedding-not-a-parameter",
        model("self.embed = torch.rand(4, 5)", "return F.embedding(x, self.embed)"),
        "self.embed = nn.Parameter(torch.rand(4, 5))",
    ),
    "column against flat": (
        "mse-broadcast",
        """
        fc = nn.Linear(8, 1)
        y = torch.randn(32)
        loss = F.mse_loss(fc(x), y)
        """,
        "loss = F.mse_loss(fc(x).squeeze(-1), y)",
    ),
    "reshaped apart": (
        "mse-broadcast",
        """
        criterion = nn.SmoothL1Loss()
        loss = criterion(model(x).view(-1), y.reshape(-1, 1))
        """,
        "loss = criterion(model(x).view(-1), y.reshape(-1, 1).squeeze(-1))",
    ),
    "a seed that is drawn": ("no-seed", "torch.seed()", "torch.manual_seed(0)"),
    "a training without": (
        "no-seed",
        """
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        """,
        "torch.manual_seed(0)  # before the model is made",
    ),
    "a script without": (
        "no-seed",
        """
        def main():
            for x, y in loader:
                model(x).backward()
                optimizer.step()

        if __name__ == "__main__":
            main()
        """,
        "torch.manual_seed(0)  # before the model is made",
    ),
    "a sum of graphs": (
        "graph-kept-alive",
        """
        def train():
            total = 0
            for x, y in loader:
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                total += loss
            return total / len(loader)
        """,
        "total += loss.item()",
    ),
}


@pytest.mark.parametrize(("code", "text", "mend"), FOUND.values(), ids=FOUND)
def test_what_is_found(code, text, mend, examined):
    (finding,) = examined(text)
    assert (finding.code, finding.mend) == (code, mend)


# A training in a function that nobody calls is no script.
ANYWHERE = {name: (code, text) for name, (code, text, _) in FOUND.items() if "optimizer.step()" not in text}


@pytest.mark.parametrize(("code", "text"), ANYWHERE.values(), ids=ANYWHERE)
def test_what_is_wrong_is_found_within_a_function_too(code, text, examined):
    inner = "\n".join(f"    {line}" for line in dedent(text).strip().splitlines())
    assert [finding.code for finding in examined(f"def around():\n{inner}\n")] == [code]


def test_every_code_of_the_source_is_held_here():
    assert {code for code, *_ in FOUND.values()} == CODES.keys() - {"no-gradient"}


MENDED_TWICE = {"padding is read", "chunks by number", "gates by comment", "one bias of two", "one bias copied"}


@pytest.mark.parametrize("name", sorted(FOUND.keys() - MENDED_TWICE))
def test_the_line_that_mends_mends(name, examined):
    """Put into the place of the line of the finding, or of the one that makes the module, nothing is found any more."""
    _, text, mend = FOUND[name]
    lines = (HEAD + dedent(text)).splitlines()
    (finding,) = examined(text)
    at = finding.line - 1
    target = mend.split(" = ")[0]
    if "batch_first=True" in mend:
        at = next(number for number, line in enumerate(lines) if line.strip().startswith(f"{target} = "))
    indent = " " * (len(lines[at]) - len(lines[at].lstrip()))
    if "before the model" in mend:
        mend = f"{mend}\n{lines[at].strip()}"
    lines[at] = "\n".join(indent + line for line in mend.splitlines())
    assert examined("\n".join(lines), head="") == []


# --- source: what is right ------------------------------------------------------------------------------------

RIGHT = {
    "batch first, and said so": "lstm = nn.LSTM(3, 4, batch_first=True)\nlstm(torch.zeros(B, T, 3))",
    "time first": "lstm = nn.LSTM(3, 4)\nout, _ = lstm(torch.zeros(seq_len, batch_size, 3))\nlast = out[-1]",
    "transposed": "lstm = nn.LSTM(3, 4)\nx = torch.zeros(B, T, 3)\nlstm(x.transpose(0, 1))\nlstm(x.permute(1, 0, 2))",
    "one of two branches": (
        "x = torch.zeros(B, T, 3)\nif time_first:\n    x = x.transpose(0, 1)\nlstm = nn.LSTM(3, 4)\nlstm(x)"
    ),
    "assigned anew": "lstm = nn.LSTM(3, 4)\nx = torch.zeros(B, T, 3)\nx = order(x)\nlstm(x)",
    "changed in a loop": "lstm = nn.LSTM(3, 4)\nx = torch.zeros(B, T, 3)\nfor _ in y:\n    lstm(x)\n    x = order(x)",
    "an option from elsewhere": model(
        "self.lstm = nn.LSTM(3, 4, batch_first=first, bidirectional=both)",
        "B, T, _ = x.shape\nout, _ = self.lstm(x)\nreturn out[:, -1], out[-1]",
    ),
    "options from a dict": "lstm = nn.LSTM(3, 4, **options)\nlstm(torch.zeros(B, T, 3))[0][:, -1]",
    "an option set later": (
        "lstm = nn.LSTM(3, 4, bidirectional=True)\nlstm.batch_first = True\nlstm(torch.zeros(B, T, 3))[0][:, -1]"
    ),
    "made in two ways": model(
        "self.lstm = nn.LSTM(3, 4, bidirectional=True) if both else nn.LSTM(3, 4)", "return self.lstm(x)[0][-1]"
    ),
    "made again": model(
        "self.lstm = nn.LSTM(3, 4)\n        self.lstm = nn.LSTM(3, 4, batch_first=True)",
        "return self.lstm(x)[0][:, -1]",
    ),
    "a module of one's own": (
        "class LSTM(nn.Module):\n    pass\n\nlstm = LSTM(3, 4)\nlstm(torch.zeros(B, T, 3))[0][:, -1]"
    ),
    "a cell": "cell = nn.LSTMCell(3, 4)\nh, c = cell(torch.zeros(batch_size, 3))\nh[-1]",
    "a batch of one": "lstm = nn.LSTM(3, 4)\nout, _ = lstm(x.view(len(x), 1, -1))\nout[:, -1]",
    "a batch of one by unsqueeze": "lstm = nn.LSTM(3, 4)\nout, _ = lstm(x.unsqueeze(1))\nout[:, -1]",
    "the last sample is looked at": "lstm = nn.LSTM(3, 4, batch_first=True)\nout, _ = lstm(x)\nplot(out[-1])",
    "one direction": model("self.lstm = nn.LSTM(3, 4, batch_first=True)", "return self.lstm(x)[0][:, -1]"),
    "the last state": model(BOTH, "_, (h, _) = self.lstm(x)\nreturn torch.cat([h[-2], h[-1]], -1)"),
    "each direction's own end": model(
        BOTH, "out, _ = self.lstm(x)\nreturn torch.cat([out[:, -1, :4], out[:, 0, 4:]], 1)"
    ),
    "each direction's own end in steps": model(
        BOTH,
        "out, _ = self.lstm(x)\nlast, first = out[:, -1], out[:, 0]\nreturn torch.cat([last[:, :4], first[:, 4:]], 1)",
    ),
    "half of the last step": model(BOTH, "out, _ = self.lstm(x)\nlast = out[:, -1]\nreturn last[:, :4]"),
    "the mean": model(BOTH, "out, _ = self.lstm(x)\nreturn out.mean(1)"),
    "asked for": model(
        BOTH, "out, (h, _) = self.lstm(x)\nif not self.lstm.bidirectional:\n    return out[:, -1]\nreturn h[-1]"
    ),
    "the last step by length": """
        lstm = nn.LSTM(3, 4, batch_first=True)
        x = pad_sequence(samples, batch_first=True)
        output, _ = lstm(x)
        last = output[torch.arange(len(lengths)), lengths - 1]
        """,
    "packed": model(
        "self.lstm = nn.LSTM(3, 4, batch_first=True)",
        "out, (h, _) = self.lstm(pack_padded_sequence(x, lengths, batch_first=True))\nreturn h[-1]",
    ),
    "right order": "lstm.weight_ih_l0.data = torch.cat([W_i, W_f, W_c, W_o])",
    "torch's own names": "lstm.weight_ih_l0.data = torch.cat([W_ii, W_if, W_ig, W_io])",
    "names that tell nothing": "lstm.weight_ih_l0.data = torch.cat([a, b, c, d])",
    "a cell of one's own": model(
        "self.weight_ih = nn.Parameter(torch.zeros(4, 4))", "i, f, o, g = (x @ self.weight_ih.T).chunk(4, 1)\nreturn i"
    ),
    "an order of one's own": model("self.all = nn.Linear(4, 8)", "f, i, o, g = self.all(x).chunk(4, 1)\nreturn f"),
    "an order of one's own beside torch's sizes": (
        "H = lstm.weight_hh_l0.size(1)\nf, i, o, g = own(x, H).chunk(4, 1)\nx = torch.zeros(H)"
    ),
    "right chunks": "i, f, g, o = lstm.weight_ih_l0.chunk(4)\na, b, c, d = lstm.weight_hh_l0.chunk(4)",
    "both biases": "W, U = lstm.weight_ih_l0, lstm.weight_hh_l0\nb = lstm.bias_ih_l0 + lstm.bias_hh_l0",
    "both biases, apart": """
        W, U = lstm.weight_ih_l0, lstm.weight_hh_l0
        b = lstm.bias_ih_l0
        d = lstm.bias_hh_l0
        """,
    "the other bias added later": (
        "W, U, b = lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0\nb = b.clone()\nb += lstm.bias_hh_l0"
    ),
    "a bias that is reset": """
        W = nn.init.xavier_uniform_(lstm.weight_ih_l0)
        U, b = nn.init.orthogonal_(lstm.weight_hh_l0), nn.init.zeros_(lstm.bias_hh_l0)
        """,
    "no bias": "W, U = lstm.weight_ih_l0, lstm.weight_hh_l0",
    "a bias that is filled": """
        nn.init.xavier_uniform_(lstm.weight_ih_l0)
        nn.init.orthogonal_(lstm.weight_hh_l0)
        lstm.bias_hh_l0.data[4:8].fill_(1)
        bias = lstm.bias_hh_l0.fill_(0)
        """,
    "biases by name": """
        W, U, b = lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0
        b = b + getattr(lstm, "bias_hh_l0")
        """,
    "a parameter": model("self.W = nn.Parameter(torch.randn(10, 5))", "return self.W[x]"),
    "a buffer": model('self.register_buffer("W", torch.randn(10, 5))', "return self.W[x]"),
    "a weight that is not used so": model("self.weight = torch.ones(5)", "return F.cross_entropy(x, x, self.weight)"),
    "no weight's name": model("self.grid = torch.zeros(10, 5)", "return self.grid[x]"),
    "trained from outside": model("self.W = torch.randn(10, 5)", "return self.W[x]") + "adam = Adam([model.W])\n",
    "no module": model("self.W = torch.randn(10, 5)", "return self.W[x]", head="class Table:"),
    "flat against flat": "fc = nn.Linear(8, 1)\nF.mse_loss(fc(x).squeeze(-1), torch.randn(32))",
    "column against column": "fc = nn.Linear(8, 1)\nF.mse_loss(fc(x), torch.randn(32, 1))",
    "column against what is unknown": "fc = nn.Linear(8, 1)\nF.mse_loss(fc(x), y)",
    "another loss": "fc = nn.Linear(8, 1)\nF.cosine_similarity(fc(x), torch.randn(32))",
    "a seed": "torch.manual_seed(0)\nfor x in loader:\n    model(x).backward()\n    optimizer.step()",
    "a seed from elsewhere": (
        "from lightning import seed_everything\nseed_everything(1)\n"
        "for x in loader:\n    model(x).backward()\n    optimizer.step()"
    ),
    "a training that others call": (
        "def train():\n    for x in loader:\n        model(x).backward()\n        optimizer.step()"
    ),
    "a seed that is kept": "used = torch.seed()\nprint(used)",
    "a sum of numbers": """
        def train():
            for x in loader:
                loss = model(x)
                loss.backward()
                total += loss.item()
        """,
    "a sum of detached losses": """
        def train():
            for x in loader:
                loss = model(x)
                loss.backward()
                loss = loss.detach()
                total += loss
        """,
    "a sum that is propagated": """
        def train():
            for x in loader:
                loss = model(x)
                total += loss
                loss.backward(retain_graph=True)
            total.backward()
        """,
    "a sum without gradients": """
        def train():
            for x in loader:
                loss = model(x)
                loss.backward()
                with torch.no_grad():
                    total += loss
        """,
}


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_what_is_right_is_left_alone(text, examined):
    assert examined(text) == []


@pytest.mark.parametrize(
    "head",
    [
        "import torch\nfrom torch import nn",
        "import torch as t\nimport torch.nn as nn",
        "from torch.nn import LSTM",
        "from torch.nn.modules.rnn import LSTM as Net",
        "import torch",
        "import gatewise",
        "import gatewise as gw",
        "from gatewise import LSTM",
        "from gatewise.nn import LSTM as Net",
        "from gatewise.nn.lstm import LSTM",
        "try:\n    from torch import nn\nexcept ImportError:\n    import torch.nn as nn",
    ],
)
def test_whatever_it_is_imported_as(head, examined):
    names = {name for node in ast.walk(ast.parse(head)) for name in getattr(node, "names", [])}
    name = {alias.asname or alias.name for alias in names}
    calls = {"nn": "nn.LSTM", "LSTM": "LSTM", "Net": "Net", "torch": "torch.nn.LSTM", "gatewise": "gatewise.LSTM"}
    calls |= {"gw": "gw.LSTM", "torch.nn": "nn.LSTM"}
    made = next(calls[known] for known in calls if known in name)
    (finding,) = examined(f"\nlstm = {made}(3, 4, bidirectional=True)\nout, _ = lstm(x)\ny = out[-1]\n", head=head)
    assert finding.code == "last-of-bidirectional"


def test_a_name_that_is_something_else_too_is_unknown(examined):
    assert examined("nn = other\nlstm = nn.LSTM(3, 4, bidirectional=True)\nlstm(x)[0][-1]") == []
    assert examined("from .own import nn\nnn.LSTM(3, 4, bidirectional=True)(x)[0][-1]", head="") == []


def test_gatewise_s_lengths_are_known(examined):
    made = "import gatewise\nlstm = gatewise.LSTM(3, 4, batch_first=True)\n"
    (finding,) = examined(f"{made}out, (h, _) = lstm(x, lengths=n)\ny = out[:, -1]", head="")
    assert (finding.code, finding.mend) == ("last-of-padded", "y = h[-1]")


def test_the_place_is_counted_in_characters_from_1(examined):
    (finding,) = examined("'ö'; torch.seed()\n")
    assert (finding.line, finding.column) == (HEAD.count("\n") + 1, 6)


def test_long_chains_take_no_long_time(examined):
    assert examined("x" + ".float()" * 80 + ".view(-1)\ny = x" + " + x" * 300) == []


# --- source: files --------------------------------------------------------------------------------------------

SEED = "import torch\ntorch.seed()\n"


def test_a_folder_is_read_without_what_is_not_its_own(tmp_path):
    for name in ("a.py", "sub/b.py", ".hidden/c.py", "__pycache__/d.py", "env/lib/e.py", "f.txt", "g.ipynb"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SEED)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert [str(path.relative_to(tmp_path)) for path in paths_of(str(tmp_path))] == ["a.py", "g.ipynb", "sub/b.py"]


def test_a_module_is_found_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pack" / "deep").mkdir(parents=True)
    for name in ("pack/__init__.py", "pack/deep/__init__.py", "pack/deep/net.py"):
        (tmp_path / name).write_text(f"raise SystemExit('run')\n{SEED}")
    assert [path.name for path in paths_of("pack.deep.net")] == ["net.py"]
    assert [path.name for path in paths_of("pack.deep")] == ["__init__.py", "net.py"]
    assert len(visit("pack").findings) == 3
    assert not {"pack", "pack.deep"} & set(sys.modules)
    assert paths_of("gatewise.nn.lstm") == [Path(gatewise.nn.lstm.__file__)]
    assert paths_of("torch.nn.modules.rnn") == [Path(nn.modules.rnn.__file__)]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nowhere.py", "nowhere.py is no file, folder or module"),
        ("no/where", "no/where is no file, folder or module"),
        ("nowhere", "nowhere is no file, folder or module"),
        ("gatewise.nowhere", "gatewise.nowhere is no file, folder or module"),
        ("gatewise.nn.lstm.LSTM", "gatewise.nn.lstm.LSTM is no file, folder or module"),
        ("__main__", "__main__ is no file, folder or module"),
        ("sys", "sys is a module without Python source"),
        ("gatewise._core", "gatewise._core is a module without Python source"),
        ("empty", "empty holds no .py or .ipynb file"),
        ("a.txt", "a.txt is no .py or .ipynb file"),
    ],
)
def test_what_is_no_source_is_refused(target, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").touch()
    with pytest.raises(ArgumentError) as error:
        visit(target)
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"x = 1\ny = = 2\n", r":2 cannot be read as Python: invalid syntax$"),
        (b"x = '\xff'\n", r" cannot be read as Python: invalid or missing encoding"),
        (b"x = 1\0", r" cannot be read as Python: source code .*null bytes"),
        (b"x = " + b"-" * 100_000 + b"1", r" cannot be read as Python: "),
    ],
)
def test_a_file_that_is_no_python_is_named_with_its_line(content, says, tmp_path):
    (tmp_path / "bad.py").write_bytes(content)
    with pytest.raises(DataError, match=says):
        read(tmp_path / "bad.py")


def test_odd_source_is_read(tmp_path):
    path = tmp_path / "a.py"
    path.write_bytes("# -*- coding: latin-1 -*-\nx = 'ä\\d'\n".encode("latin-1"))
    assert examine(read(path)) == []
    path.write_bytes(b"")
    assert examine(read(path)) == []
    path.write_bytes(b"\xef\xbb\xbfimport torch\r\ntorch.seed()\r\n")
    assert [(finding.line, finding.column) for finding in examine(read(path))] == [(2, 1)]


def notebook(*cells):
    return json.dumps({"nbformat": 4, "cells": [{"cell_type": kind, "source": source} for kind, source in cells]})


def test_a_notebook_is_read_cell_by_cell(tmp_path):
    path = tmp_path / "a.ipynb"
    cells = [
        ("markdown", "# not = python ="),
        ("code", ["%matplotlib inline\n", "!pip install torch\n", "import torch"]),
        ("code", "%%bash\nls -l"),
        ("code", ["x = 1\n", "torch.seed()\n"]),
    ]
    path.write_text(notebook(*cells))
    (finding,) = examine(read(path))
    assert (finding.where, finding.line, finding.column) == (f"{path}:cell 4", 2, 1)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"cells": [3]}', '{"cells": [{"cell_type": "code", "source": 3}]}']
)
def test_a_notebook_that_is_none_is_refused(content, tmp_path):
    (tmp_path / "a.ipynb").write_text(content)
    with pytest.raises(DataError, match=r"a\.ipynb cannot be read as Python: "):
        read(tmp_path / "a.ipynb")


# --- the command line -----------------------------------------------------------------------------------------


def test_the_command_prints_and_counts(tmp_path, capsys):
    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    assert main(["doctor", str(path)]) == 0
    assert capsys.readouterr() == ("no findings in 1 file\n", "")
    path.write_text(SEED)
    assert main(["doctor", str(path)]) == 1
    first, mend, count = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{path}:2:1 no-seed: torch.seed() draws")
    assert (mend, count) == ("    mend: torch.manual_seed(0)", "1 finding in 1 file")
    assert main(["doctor", str(path), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert list(found) == ["where", "line", "column", "code", "what", "mend"]
    assert (found["where"], found["line"], found["column"], found["code"]) == (str(path), 2, 1, "no-seed")


def test_a_broken_file_is_named_and_the_others_are_read(tmp_path, capsys):
    (tmp_path / "a.py").write_text("def")
    (tmp_path / "b.py").write_text(SEED)
    assert main(["doctor", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "b.py:2:1 no-seed" in out
    assert out.endswith("1 finding in 1 file\n")
    assert err == f"gatewise: error: {tmp_path}/a.py:1 cannot be read as Python: invalid syntax\n"


def test_the_source_is_read_without_torch(tmp_path):
    (tmp_path / "a.py").write_text(SEED)
    code = (
        f"import sys, gatewise.cli as cli; cli.main(['doctor', {str(tmp_path)!r}]); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_gatewise_s_own_code_is_well():
    for folder in ("src", "benchmarks"):
        seen = visit(str(ROOT / folder))
        assert (seen.findings, seen.unread) == ([], ())
        assert seen.files > 1


# --- a live model ---------------------------------------------------------------------------------------------


class Model(nn.Module):
    """A recurrent module, what is taken of its output, and a linear layer."""

    def __init__(self, rnn, take, width):
        super().__init__()
        self.rnn = rnn
        self.fc = nn.Linear(width, 2)
        self.take = take

    def forward(self, x):
        return self.fc(self.take(*self.rnn(x)))


def last(output, _):
    return output[:, -1]


def ends(output, state):
    h_n = state[0] if isinstance(state, tuple) else state
    return torch.cat([h_n[-2], h_n[-1]], dim=-1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    random.seed(7)


def codes(findings):
    return [(finding.where, finding.code) for finding in findings]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, gatewise.LSTM])
def test_swapped_axes_show(kind):
    x = torch.randn(5, 7, 3)
    found = doctor(Model(kind(3, 4), last, 4), x)
    assert codes(found) == [("model.rnn", "batch-and-time")]
    package = "gatewise" if kind is gatewise.LSTM else "torch.nn"
    assert found[0].mend == f"model.rnn = {package}.{kind.__name__}(3, 4, batch_first=True)"
    assert "(5, 7, 3) has the 5 samples along axis 0" in found[0].what
    assert doctor(Model(kind(3, 4, batch_first=True), last, 4), x) == []
    assert codes(doctor(Model(kind(3, 4), last, 4), torch.randn(5, 5, 3))) == [("model.rnn", "batch-and-time")]
    assert doctor(Model(kind(3, 4, batch_first=True), last, 4), torch.randn(5, 5, 3)) == []


def test_swapped_axes_show_the_other_way_round():
    x = torch.randn(7, 5, 3)
    made = nn.LSTM(3, 4, 2, batch_first=True, dropout=0.5)
    found = doctor(Model(made, lambda output, _: output[-1], 4), x, batch_axis=1)
    assert codes(found) == [("model.rnn", "batch-and-time")]
    assert found[0].mend == "model.rnn = torch.nn.LSTM(3, 4, num_layers=2, dropout=0.5, batch_first=False)"
    right = Model(nn.LSTM(3, 4), lambda output, _: output[-1], 4)
    assert doctor(right, x, batch_axis=1) == []


def test_what_follows_the_samples_is_well():
    class Mixing(nn.Module):
        """Compares samples, which is no mistake of its recurrent module."""

        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 4, batch_first=True)

        def forward(self, x):
            h = self.rnn(x)[1][-1]
            return h - h.mean(0) * torch.arange(len(h))[:, None]

    class MixingBefore(Mixing):
        def forward(self, x):
            return super().forward(x + x.cumsum(0))

    class Unused(Mixing):
        def forward(self, x):
            self.rnn(x.transpose(0, 1))
            return x.sum(1)

    x = torch.randn(5, 7, 3)
    assert doctor(Mixing(), x) == []
    assert doctor(MixingBefore(), x) == []
    assert doctor(Unused(), x) == []
    around = torch.stack([x[0, :5].roll(-shift, 0) for shift in range(5)])  # samples and steps look alike
    assert doctor(Mixing(), around) == []
    assert doctor(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(21), nn.Dropout(), nn.Linear(21, 1)), x) == []
    assert doctor(Model(nn.LSTM(3, 4), last, 4), x[:1]) == []  # one sample shows nothing
    assert doctor(nn.LSTM(3, 4, batch_first=True), x) == []


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, gatewise.LSTM])
def test_the_last_step_of_both_directions_shows(kind):
    x = torch.randn(5, 7, 3)
    made = kind(3, 4, batch_first=True, bidirectional=True)
    found = doctor(Model(made, last, 8), x)
    assert codes(found) == [("model.rnn", "last-of-bidirectional")]
    assert "torch.cat([h_n[-2], h_n[-1]], dim=-1)" in found[0].mend
    signs = Model(made, lambda output, _: torch.cat([output[:, -1], -output[:, -1]], 1), 16)
    signs.fc = nn.Identity()  # whose plain sum has no gradient
    assert codes(doctor(signs, x)) == [("model.rnn", "last-of-bidirectional")]

    class Twice(Model):
        def forward(self, x):
            return self.rnn(x)[0][:, -1] + self.rnn(-x)[0][:, -1]

    assert codes(doctor(Twice(made, last, 8), x)) == [("model.rnn", "last-of-bidirectional")]
    softmax = nn.Sequential(Model(made, last, 8), nn.Softmax(-1))
    assert codes(doctor(softmax, x)) == [("model.0.rnn", "last-of-bidirectional")]
    for take, width in (
        (ends, 8),
        (lambda output, _: output.mean(1), 8),
        (lambda output, _: output[:, -1, :4], 4),
        (lambda output, _: torch.cat([output[:, -1, :4], output[:, 0, 4:]], 1), 8),
    ):
        assert doctor(Model(made, take, width), x) == []


class Tagger(nn.Module):
    """Ids through an embedding and a recurrent module."""

    def __init__(self, packs, take, padding_idx=0):
        super().__init__()
        self.embed = nn.Embedding(10, 3, padding_idx)
        self.rnn = nn.LSTM(3, 4, batch_first=True)
        self.packs, self.take = packs, take

    def forward(self, ids, lengths):
        x = self.embed(ids)
        if not self.packs:
            return self.take(*self.rnn(x))
        output, state = self.rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        return self.take(pad_packed_sequence(output, batch_first=True)[0], state)


def of_state(_, state):
    return state[0][-1]


def test_the_last_step_of_a_padded_batch_shows():
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [7, 8, 9, 0]])
    batch = (ids, torch.tensor([4, 2, 3]))
    found = doctor(Tagger(False, last), batch)
    assert codes(found) == [("model.rnn", "last-of-padded")]
    assert "2 sequences of the batch end before" in found[0].what
    assert codes(doctor(Tagger(True, last), batch)) == [("model.rnn", "last-of-padded")]
    assert doctor(Tagger(True, of_state), batch) == []
    assert doctor(Tagger(False, last), (ids[:1], batch[1][:1])) == []
    assert doctor(Tagger(False, last, padding_idx=None), batch) == []  # 0 may be a word


def test_zeros_are_padding_only_where_they_look_like_it():
    right = Model(nn.GRU(3, 4, batch_first=True), lambda _, h: h[-1], 4)
    wrong = Model(nn.GRU(3, 4, batch_first=True), last, 4)
    x = pad_sequence([torch.randn(n, 3) for n in (9, 4, 7)], batch_first=True)
    assert codes(doctor(wrong, x)) == [("model.rnn", "last-of-padded")]
    assert doctor(right, x) == []
    image = x.clone()
    image[:, 0] = 0  # a margin above as well as below
    assert doctor(wrong, image) == []
    slightly = torch.randn(2, 3, 3)
    slightly[1, 2] = 0  # a single step may well be data
    assert doctor(wrong, slightly) == []
    assert doctor(wrong, torch.cat([x[1:], x[1:]])) == []  # nobody needs padding that none goes without
    assert doctor(wrong, torch.zeros(3, 9, 3)) == []


def test_plain_tensors_show():
    class Table(nn.Module):
        def __init__(self, table):
            super().__init__()
            self.table = table
            self.unused = torch.randn(3, 3)
            self.state = torch.zeros(2, 2)

        def forward(self, ids):
            self.state = self.state + 1
            return self.table[ids] + self.state.sum()

    ids = torch.tensor([1, 2, 0])
    found = doctor(nn.Sequential(Table(torch.randn(5, 4))), ids)
    assert codes(found) == [("model.0", "embedding-not-a-parameter")]
    assert found[0].mend == "model.0.table = torch.nn.Parameter(model.0.table)"
    assert doctor(Table(nn.Parameter(torch.randn(5, 4))), ids) == []
    pruned = nn.Linear(3, 2)
    prune.l1_unstructured(pruned, "weight", amount=2)
    assert doctor(pruned, torch.randn(4, 3)) == []


@pytest.mark.parametrize(
    "loss", [nn.MSELoss(), nn.L1Loss(), nn.functional.smooth_l1_loss, lambda one, other: (one - other).square().mean()]
)
def test_a_loss_that_broadcasts_shows(loss):
    net, x = nn.Linear(3, 1), torch.randn(6, 3)
    found = doctor(net, x, torch.randn(6), loss)
    assert codes(found) == [("loss", "mse-broadcast")]
    assert "[6, 1] and the target [6] are broadcast to [6, 6]" in found[0].what
    assert found[0].mend == "loss(output.squeeze(-1), target)"
    assert doctor(net, x, torch.randn(6, 1), loss) == []
    flat = nn.Sequential(net, nn.Flatten(0))
    assert doctor(flat, x, torch.randn(6), loss) == []
    assert doctor(flat, x, torch.randn(6, 1), loss)[0].mend == "loss(output, target.squeeze(-1))"


def test_a_loss_that_knows_its_shapes_is_well():
    net, x = nn.Linear(3, 1), torch.randn(6, 3)
    assert doctor(net, x, torch.randn(6), lambda one, other: (one.view(-1) - other).square().mean()) == []
    assert doctor(net, x, torch.randn(6), lambda one, other: (one[:, 0] - other).square().mean()) == []
    assert doctor(nn.Linear(3, 6), x, torch.arange(6), nn.CrossEntropyLoss()) == []


def test_parameters_without_a_gradient_show():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.lost = nn.Linear(3, 2), nn.Linear(3, 2)
            self.frozen = nn.Linear(3, 2).requires_grad_(False)

        def forward(self, x):
            return self.used(x)

    class Cut(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    x, y = torch.randn(4, 3), torch.randn(4, 2)
    found = doctor(Heads(), x, y, nn.MSELoss())
    assert codes(found) == [("model.lost", "no-gradient")]
    assert "weight, bias" in found[0].what
    assert codes(doctor(Cut(3, 2), x, y, nn.MSELoss())) == [("model", "no-gradient")]
    assert doctor(nn.Linear(3, 2).requires_grad_(False), x, y, nn.MSELoss()) == []


def test_the_model_is_left_as_it_was():
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.rnn = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
            self.hidden = None
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            x.mul_(0.5)
            output, self.hidden = self.rnn(self.norm(x.transpose(1, 2)).transpose(1, 2), self.hidden)
            self.noise = random.random() + torch.rand(())
            return nn.functional.dropout(output[:, -1], training=self.training)

    net = Stateful()
    x, y = torch.randn(5, 7, 3), torch.randn(5, 8)
    net(x).sum().backward()  # with gradients, and a state that was computed with them
    net.rnn.eval()
    state, hidden, calls = copy.deepcopy(net.state_dict()), net.hidden, net.calls
    gradients = {name: weight.grad.clone() for name, weight in net.named_parameters()}
    before, given = (torch.get_rng_state(), random.getstate()), x.clone()
    found = doctor(net, x, y, nn.MSELoss())
    assert codes(found) == [("model.rnn", "last-of-bidirectional")]
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert torch.equal(x, given)
    assert (net.training, net.norm.training, net.rnn.training) == (True, True, False)
    assert net.hidden is hidden and net.calls == calls
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(weight.grad, gradients[name]) for name, weight in net.named_parameters())
    assert not net.rnn._forward_hooks
    with torch.no_grad():
        assert doctor(net, x, y, nn.MSELoss()) == found


def test_a_model_that_fails_is_left_as_it_was_too():
    net, before = nn.Linear(3, 2), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        doctor(net, torch.randn(4, 5))
    torch.set_rng_state(before)
    with pytest.raises(RuntimeError):
        doctor(net, torch.zeros(4, 5))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_may_be_words():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 4)

        def forward(self, x, scale):
            return {"score": self.rnn(input=x)[0][:, -1] * scale}

    found = doctor(Named(), {"x": torch.randn(5, 7, 3), "scale": 2.0})
    assert codes(found) == [("model.rnn", "batch-and-time")]


def test_what_the_doctor_cannot_see_is_refused():
    net, x = nn.Linear(3, 2), torch.randn(4, 3)
    with pytest.raises(ArgumentError, match=r"model is a function, needed is a torch.nn.Module"):
        doctor(last, x)
    with pytest.raises(ArgumentError, match=r"only one of target and loss was given"):
        doctor(net, x, torch.randn(4, 2))
    with pytest.raises(ArgumentError, match=r"batch has no tensor with an axis 2"):
        doctor(net, x, batch_axis=2)
    net.stream = sys.stdout
    with pytest.raises(ArgumentError, match=r"the Linear cannot be copied \(TypeError: cannot pickle"):
        doctor(net, x)


# --- findings and the page ------------------------------------------------------------------------------------


def test_findings_print_as_text():
    one = Finding("model.rnn", None, None, "no-seed", "Why.", "a\nb")
    assert str(Findings([one])) == repr(Findings([one])) == "model.rnn no-seed: Why.\n    mend: a\n          b"


def sections():
    text = (ROOT / "docs" / "doctor.md").read_text()
    for part in text.split("\n### ")[1:]:
        code, _, rest = part.partition("\n")
        blocks = [block.removeprefix("python\n") for block in rest.split("```")[1::2]]
        yield code.strip("`"), blocks


def test_the_page_has_every_code_in_order():
    assert [code for code, _ in sections()] == list(CODES)


@pytest.mark.parametrize(("code", "blocks"), list(sections()), ids=[code for code, _ in sections()])
def test_the_page_s_lines_are_as_it_says(code, blocks, examined):
    if code == "no-gradient":
        return  # shown in a live model, and run below
    wrong, right = blocks
    assert [finding.code for finding in examined(wrong)] == [code]
    assert examined(right) == []


def test_the_page_s_examples_run():
    result = doctest.testfile(str(ROOT / "docs" / "doctor.md"), module_relative=False)
    assert result.attempted > 5 and not result.failed


def test_files_that_are_none(tmp_path, capsys):
    """An editor's lock that leads nowhere, a broken link and a pipe: the other files are read all the same."""
    (tmp_path / "good.py").write_text("import torch\n")
    (tmp_path / ".#good.py").symlink_to("user@host.1")
    (tmp_path / "broken.py").symlink_to("nowhere.py")
    os.mkfifo(tmp_path / "pipe.py")
    seen = visit(str(tmp_path))
    assert seen.files == 1
    assert [re.sub(".*/", "", line) for line in seen.unread] == [
        "broken.py cannot be read: No such file or directory",
        "pipe.py cannot be read as Python: it is no regular file",
    ]
    with pytest.raises(ArgumentError, match="is no regular file"):
        visit(str(tmp_path / "pipe.py"))
    with pytest.raises(ArgumentError, match="the path is empty"):
        visit("")
    assert visit(str(tmp_path / "good.py"), str(tmp_path / "good.py")).files == 1


def test_live_batches_of_an_odd_kind():
    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 8)

        def forward(self, x):
            return self.lstm(x)[1][0][-1]

    assert [finding.code for finding in doctor(Last(), torch.randn(5, 7, 4))] == ["batch-and-time"]
    assert doctor(torch.nn.Linear(7, 1), torch.full((5, 7), torch.nan), torch.randn(5, 1), torch.nn.MSELoss()) == []
    with pytest.raises(ArgumentError, match="no sample along axis 0"):
        doctor(Last(), torch.randn(0, 7, 4))
