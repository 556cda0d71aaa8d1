"""Text: what is read and numbered, what it costs in bits, what is drawn, and the commands around it."""

import dataclasses
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import gatewise
from gatewise.cli import main
from gatewise.data import text
from gatewise.data.text import SCALARS, Vocabulary, read_document
from gatewise.errors import ArgumentError, DataError
from gatewise.tasks.generation import Sampling, generate, prompt_numbers, read, written
from gatewise.tasks.language import LanguageModel, document_of, foretell, lanes_of, loss_of, measures_of
from gatewise.tasks.text import TextConfig
from gatewise.train.lanes import NO_TARGET
from gatewise.train.run import Run
from test_resume import Process, kept

TEXTS = st.text(min_size=1, max_size=300)
"""All of Unicode but surrogates, control characters and line ends of every kind among it."""


def a_file(folder, content, name="book.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def a_model(characters="abn", tied=False, seed=0, **sizes):
    torch.manual_seed(seed)
    sizes = {"embedding_size": 5, "hidden_size": 7, "num_layers": 2} | sizes
    return LanguageModel(Vocabulary("characters", characters), tied=tied, **sizes).eval()


# --- data -----------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(content=TEXTS, unit=st.sampled_from(["characters", "bytes"]), piece=st.integers(1, 7))
def test_what_is_read_is_what_was_written(content, unit, piece):
    """However the pieces cut through characters."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "PIECE", piece)
        known = Vocabulary(unit, "".join(sorted(set(content))) if unit == "characters" else "")
        path = a_file(Path(folder), content + content * 9)
        document = read_document(path, unit, 0.1, 0.2, known)
    whole = document.numbers[:]
    assert known.decode(whole) == content * 10
    assert whole.tolist() == known.encode(content * 10).tolist()
    dev, test = document.borders
    assert (test, dev) == (len(whole) - round(len(whole) * 0.2), test - round(len(whole) * 0.1))


@settings(max_examples=60, deadline=None)
@given(content=TEXTS.filter(lambda content: len(content) >= 10))
def test_the_vocabulary_is_that_of_the_training_part(content):
    with tempfile.TemporaryDirectory() as folder:
        document = read_document(a_file(Path(folder), content), "characters", 0.2, 0.2)
    known, dev = document.vocabulary, document.borders[0]
    assert known.characters == "".join(sorted(set(content[:dev])))
    unknown = (document.numbers[:] == known.unknown).tolist()
    assert unknown == [character not in content[:dev] for character in content]


def test_line_ends_and_a_byte_order_mark_stay(tmp_path):
    content = "\ufeffone\r\ntwo\rthree\n" * 3
    document = read_document(a_file(tmp_path, content), "characters", 0.0, 0.1)
    assert document.vocabulary.decode(document.numbers[:]) == content


def test_bytes_that_are_no_utf_8_are_named_by_their_place(tmp_path, monkeypatch):
    content = "é" * 50 + "a"
    for piece in (1, 3, 10, 2**20):
        monkeypatch.setattr(text, "PIECE", piece)
        path = a_file(tmp_path, content.encode() + b"\xff" + b"a" * 50)
        with pytest.raises(DataError, match=r"not UTF-8 \(byte 101 is 0xff: invalid start byte\): convert it, or read"):
            read_document(path, "characters", 0.1, 0.1)
        path = a_file(tmp_path, content.encode() + b"\xe4\xb8")
        with pytest.raises(DataError, match=r"byte 101 is 0xe4: unexpected end of data"):
            read_document(path, "characters", 0.1, 0.1)
        assert len(read_document(path, "bytes", 0.1, 0.1).numbers) == 103


def test_the_parts_foretell_everything_once(tmp_path):
    path = a_file(tmp_path, bytes(range(200)))
    config = TextConfig(data=path, unit="bytes", batch_size=3, bptt="7", test_fraction=0.1, dev_fraction=0.05)
    parts = lanes_of(document_of(config), config)
    assert {name: len(part) for name, part in parts.items()} == {"train": 169, "dev": 10, "test": 20}
    for name, size, first, last in (("train", 3, 1, 169), ("dev", 2, 170, 179), ("test", 1, 180, 199)):
        inputs, targets = [], []
        for batch in parts[name].batches(size, None):
            there = batch.targets != NO_TARGET
            inputs += batch.inputs[0][there].tolist()
            targets += batch.targets[there].tolist()
        assert sorted(targets) == list(range(first, last + 1))
        assert [i + 1 for i in inputs] == targets


def test_a_file_that_becomes_shorter_is_noticed(tmp_path):
    path = a_file(tmp_path, b"abc" * 100)
    numbers = read_document(path, "bytes", 0.1, 0.1).numbers
    os.truncate(path, 30)
    assert numbers[:30].tobytes() == b"abc" * 10
    with pytest.raises(DataError, match="has become shorter since the training began"):
        numbers[20:40]


def test_no_room_for_the_numbers_is_said(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(DataError, match=r"needs 0\.0 MB in .* \(No space left on device\): make room there"):
        read_document(a_file(tmp_path, "a" * 100), "characters", 0.1, 0.1)


MEMORY = """
import sys
from pathlib import Path
from gatewise.tasks.language import problem
from gatewise.tasks.text import TextConfig
from gatewise.train.runner import Runner
from gatewise.train.callback import Callback

class Stops(Callback):
    def step(self, runner):
        if runner.progress.step == 3:
            runner.stop()

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

for name in sys.argv[2:]:  # the first brings what the code itself needs
    config = TextConfig(data=Path(name), unit=sys.argv[1], hidden_size=8, embedding_size=4, threads=1)
    found = problem(config)
    found.splits["train"].sha256()
    runner = Runner(found.model, found.loss, config, measures=found.measures, carries=True)
    runner.train(found.splits["train"], {}, [Stops()])
    print(peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("unit", ["characters", "bytes"])
def test_the_memory_does_not_grow_with_the_document(tmp_path, unit):
    sentence = "太初有道，道与神同在。In the beginning was the Word.\n".encode()
    files = []
    for megabytes in (2, 60):
        files.append(tmp_path / f"{megabytes}.txt")
        files[-1].write_bytes(sentence * (megabytes * 10**6 // len(sentence)))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, unit, *map(str, files)], capture_output=True, text=True, check=True
    )
    small, large = map(int, done.stdout.split())
    assert large - small < 15_000, "kB more of a document 58 MB larger (7,700 were seen: what malloc keeps)"


# --- the model ------------------------------------------------------------------------------------------------


def test_the_state_makes_two_halves_a_whole():
    model, numbers = a_model(), torch.randint(0, 4, (3, 20))
    whole, state = model(numbers)
    first, middle = model(numbers[:, :9])
    second, after = model(numbers[:, 9:], middle)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after, state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(8, 8), (6, 8)])
def test_tied_weights_are_one_tensor_and_kept_once(tmp_path, sizes):
    embedding, hidden = sizes
    model = a_model(tied=True, embedding_size=embedding, hidden_size=hidden)
    names = set(model.state_dict())
    assert not any(name.startswith("linear") for name in names)
    assert ("to_embedding.weight" in names) == (embedding != hidden)
    numbers = torch.tensor([[0, 1]])
    output, _ = model.lstm(model.embedding(numbers))
    if embedding != hidden:
        output = output @ model.to_embedding.weight.T
    torch.testing.assert_close(model(numbers)[0], output @ model.embedding.weight.T + model.bias)
    run = trained(tmp_path, tied=True, embedding_size=embedding, hidden_size=hidden)
    with safetensors.safe_open(run / "best.safetensors", framework="np") as file:
        kinds = {name for name in file.keys() if 5 in file.get_slice(name).get_shape()}  # noqa: SIM118 (4 and unknown)
    assert kinds == {"bias", "embedding.weight"}


@settings(max_examples=30, deadline=None)
@given(
    targets=st.lists(st.integers(0, 3), min_size=1, max_size=9).filter(lambda targets: min(targets) < 3),
    seed=st.integers(0, 99),
)
def test_bits_loss_and_perplexity_say_the_same(targets, seed):
    known = Vocabulary("characters", "abn")
    logits = torch.randn(1, len(targets), 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wanted = torch.tensor([targets])
    costs = cross_entropy(logits[0], wanted[0], reduction="none")
    costs = costs + (wanted[0] == 3) * math.log(SCALARS - 3)  # which of the unknown ones
    loss = loss_of(known)(logits, wanted)
    torch.testing.assert_close(loss, costs.mean())
    bits = measures_of(known)["bits_per_character"](logits, wanted) / len(targets)
    assert 2 ** bits.item() == pytest.approx(math.exp(loss.item()))
    nobody = torch.cat([wanted, torch.full((1, len(targets)), NO_TARGET)])
    torch.testing.assert_close(loss_of(known)(torch.cat([logits, logits]), nobody), loss)


def test_all_characters_together_have_probability_one():
    """The known ones, and each unknown one: so no code could be shorter than the bits say."""
    known, logits = Vocabulary("characters", "abn"), torch.randn(1, 1, 4, dtype=torch.float64)
    cost = [loss_of(known)(logits, torch.tensor([[number]])).item() for number in range(4)]
    assert sum(math.exp(-c) for c in cost[:3]) + known.unseen * math.exp(-cost[3]) == pytest.approx(1)


# --- generation -----------------------------------------------------------------------------------------------


def test_generation_carries_the_state():
    """Greedily, each number is the likeliest after all those before it, read at once."""
    model = a_model("abcdefgh", hidden_size=16)
    with torch.no_grad():
        for weight in model.lstm.parameters():
            weight.mul_(4)  # so that what was read before counts
    prompt = prompt_numbers(model.vocabulary, "bad")
    drawn = list(generate(model, prompt, 30, Sampling(temperature=0)))
    numbers = torch.cat([prompt, torch.tensor(drawn)])
    logits, _ = model(numbers[None, :-1])
    assert logits[0, 2:, :8].argmax(1).tolist() == drawn
    state, found = None, []
    for number in numbers[:-1]:
        one, state = read(model, number[None], state)
        found.append(one)
    torch.testing.assert_close(torch.stack(found), logits[0], rtol=1e-4, atol=1e-5)


def test_the_same_seed_draws_the_same_and_never_the_unknown():
    model = a_model()
    with torch.no_grad():
        model.linear.bias[3] = 50.0  # certain to be the unknown one, were it drawn from
    drawn = [list(generate(model, torch.tensor([0]), 60, Sampling(seed=seed))) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {number for each in drawn for number in each} == {0, 1, 2}
    assert set(generate(model, torch.tensor([0]), 20, Sampling(temperature=0))) <= {0, 1, 2}


@settings(max_examples=200, deadline=None)
@given(
    logits=st.lists(st.floats(-20, 20), min_size=1, max_size=12),
    top_p=st.floats(0.001, 1.0),
    temperature=st.floats(1e-300, 50),
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(logits, top_p, temperature):
    logits = torch.tensor(logits, dtype=torch.float64)
    all_of_them = Sampling(temperature).probabilities(logits)
    torch.testing.assert_close(all_of_them.sum().item(), 1.0)
    found = Sampling(temperature, top_p).probabilities(logits)
    places = found > 0
    own = all_of_them[places]
    assert places.any() and found.sum().item() == pytest.approx(1)
    torch.testing.assert_close(found[places], own / own.sum())
    if top_p < 1:
        assert own.sum() >= top_p - 1e-12
        assert own.sum() - own.min() < top_p + 1e-12  # without the least likely it would not
        assert not (~places).any() or own.min() >= all_of_them[~places].max()


def test_draws_come_as_often_as_they_are_likely():
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    found = Sampling(temperature=0.5).probabilities(logits)
    torch.testing.assert_close(found, torch.tensor([25, 9, 4.0]).double() / 38, rtol=1e-6, atol=0)
    assert Sampling(temperature=0).probabilities(logits).tolist() == [1, 0, 0]


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=40))
def test_bytes_are_written_as_whole_characters(content):
    pieces = list(written(Vocabulary("bytes"), content))
    assert "".join(pieces) == content.decode("utf-8", "replace")
    assert all(piece.encode().decode() == piece for piece in pieces)


def test_a_prompt_is_of_what_the_model_knows():
    known = Vocabulary("characters", "abn")
    assert prompt_numbers(known, "banana").tolist() == [1, 0, 2, 0, 2, 0]
    with pytest.raises(ArgumentError, match=r"prompt has 'z', which the model never saw, needed are some of 'abn'"):
        prompt_numbers(known, "baz")
    with pytest.raises(ArgumentError, match="prompt is empty"):
        prompt_numbers(known, "")
    assert prompt_numbers(Vocabulary("bytes"), "é").tolist() == [0xC3, 0xA9]


# --- the commands ---------------------------------------------------------------------------------------------

BANANAS = "banana " * 200
SETTINGS = {"batch-size": 4, "bptt": "10", "hidden-size": 8, "embedding-size": 4, "epochs": 2, "threads": 1}


def words(path, run, **changes):
    changed = SETTINGS | {name.replace("_", "-"): value for name, value in changes.items()}
    flags = [f"--{name}" for name, value in changed.items() if value is True]
    values = [word for name, value in changed.items() if value is not True for word in (f"--{name}", str(value))]
    return ["train", "text", "--data", str(path), "--run", str(run), *flags, *values]


def trained(folder, content=BANANAS, **changes):
    run = folder / "run"
    assert main(words(a_file(folder, content), run, **changes)) == 0
    return run


@pytest.fixture(scope="module")
def bananas(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("bananas"), epochs=8, learning_rate=0.03, hidden_size=16)


def test_from_training_to_a_text(bananas, capsys):
    assert main(["evaluate", str(bananas), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 140 and found["unknown"] == 0
    assert found["bits_per_character"] < 0.2
    assert found["perplexity"] == pytest.approx(2 ** found["bits_per_character"])
    assert found["loss"] == pytest.approx(found["bits_per_character"] * math.log(2))
    assert main(["evaluate", str(bananas)]) == 0
    said = capsys.readouterr().out
    assert "bits per character, loss 0." in said and " nats, perplexity 1." in said and "characters/s" in said
    assert main(["generate", str(bananas), "--prompt", "banana ba", "--length", "12", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == "banana banana banana \n"
    assert main(["generate", str(bananas), "--prompt", "banana ba", "--length", "5", "--top-p", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompt"] + found["text"] == "banana banana " and found["top_p"] == 0.5


def test_what_training_says_names_its_units(tmp_path, capsys):
    run = trained(tmp_path, unit="bytes")
    said = capsys.readouterr().out
    assert "bits per byte" in said and "bytes/s" in said and "bananas" not in said
    assert f"        gatewise generate {run} --prompt 'A few words'\n" in said
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(line["bits_per_byte"] == pytest.approx(line["loss"] / math.log(2)) for line in lines)
    assert (run / "curves.png").is_file()


def test_the_test_part_is_read_as_a_whole(bananas):
    """As the model by itself reads it."""
    run = Run(bananas)
    config = TextConfig(data=bananas.parent / "book.txt", batch_size=4, bptt="10", hidden_size=16, embedding_size=4)
    model = gatewise.load(bananas)
    numbers = torch.from_numpy(model.vocabulary.encode(BANANAS))
    logits, _ = model(numbers[None, 1259:-1])
    wanted = cross_entropy(logits[0], numbers[1260:]).item()
    assert foretell(config, run, "best").score.loss == pytest.approx(wanted, rel=1e-4)


def test_unknown_characters_cost_more_than_any_known_one(tmp_path, capsys):
    path = a_file(tmp_path, BANANAS[:-1] + "é")
    run = trained(tmp_path)
    assert main(["evaluate", str(run), "--json"]) == 0
    without = json.loads(capsys.readouterr().out.splitlines()[-1])
    a_file(tmp_path, BANANAS[:-1] + "é")
    assert main(["evaluate", str(run), "--json", "--data", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (without["unknown"], found["unknown"]) == (0, 1)
    assert found["loss"] - without["loss"] > (math.log(SCALARS) - 1) / 140


@pytest.mark.parametrize("changes", [{"bptt": "5/10"}, {"bptt": "random/8"}, {"tied": True, "unit": "bytes"}])
def test_kill_9_and_resume(tmp_path, changes):
    """Wherever it falls: the same bytes as uninterrupted."""
    path = a_file(tmp_path, "太初有道，道与神同在。\n" * 120)
    options = {"epochs": 3, "log_every": 5, "checkpoint_seconds": 0, **changes}
    assert main(words(path, tmp_path / "whole", **options)) == 0
    needed = kept(tmp_path / "whole")
    chance = random.Random(1)
    folder, out = tmp_path / "run", tmp_path / "out"
    typed = words(path, folder, **options)
    for step in (7, 40):
        process = Process(out, *typed)
        process.wait_for_step(folder, step)
        time.sleep(0.01 * chance.random())
        process.send(signal.SIGKILL)
        assert process.ended()[0] in (-signal.SIGKILL, 0)
        typed = ["resume", folder]
    status, said = Process(out, *typed).ended()
    assert (status, "rror" in said) == (0, False), said
    assert kept(folder) == needed


def test_a_resumption_needs_the_same_text(tmp_path, capsys):
    run = trained(tmp_path)
    a_file(tmp_path, BANANAS.replace("banana", "ananab"))
    assert main(["resume", str(run)]) == 2
    assert "is of other data than are there now" in capsys.readouterr().err


def test_generate_ends_quietly_where_nobody_reads(bananas):
    command = [sys.executable, "-m", "gatewise.cli", "generate", str(bananas), "--prompt", "b", "--length", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(3) == b"ban"  # it comes while more is drawn
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""

    def hears_ctrl_c():  # what is started in the background by a shell ignores it, and so would this
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, preexec_fn=hears_ctrl_c) as process:
        assert process.stdout.read(3) == b"ban"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (130, b"gatewise: interrupted\n")


def test_runs_and_compare(bananas, tmp_path, capsys):
    by_bytes = trained(tmp_path, unit="bytes")
    capsys.readouterr()
    assert main(["runs", str(bananas.parent)]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[1:4] == ["text", "ended", "8/8"] and "%" not in " ".join(row)
    for other in (by_bytes, bananas):
        figure = tmp_path / "both.png"
        assert main(["compare", str(bananas), str(other), "--figure", str(figure)]) == 0
        assert figure.is_file()


def test_a_search(tmp_path, capsys):
    pytest.importorskip("optuna")
    path = a_file(tmp_path, BANANAS)
    run = tmp_path / "tune"
    tune = ["tune", *words(path, run, epochs=1)[1:]]
    search = ["--search", "hidden_size=4..8", "bptt=10,5/10,random", "--trials", "2", "--processes", "1"]
    assert main([*tune, *search]) == 0
    assert "bits per character" in capsys.readouterr().out


NONE = object()

REFUSED = {
    "no file": (NONE, {}, "book.txt is no file: give a text file"),
    "an empty file": (b"", {}, "book.txt is empty: give a text file"),
    "no UTF-8": (b"a" * 500 + b"\xff", {}, "is not UTF-8 (byte 500 is 0xff: invalid start byte): convert it, or read"),
    "too short for the lanes": (
        "a" * 40,
        {},
        "needed are 41 for 4 lanes and chunks of 10",
    ),
    "no test part": ("a" * 90, {"test_fraction": 0.001}, "test_fraction leaves none to a part"),
    "no dev part": ("a" * 90, {"dev_fraction": 0.001}, "dev_fraction leaves none to a part"),
    "fractions": (BANANAS, {"dev_fraction": 0.9}, "dev_fraction is 0.9, needed is below 0.9"),
    "k2 below k1": (BANANAS, {"bptt": "10/5"}, "bptt is 10/5, needed is K1, or K1/K2 with K2 no smaller, or random"),
    "bptt in words": (BANANAS, {"bptt": "ten"}, "bptt is ten, needed is K1"),
    "accumulate": (BANANAS, {"accumulate": 2}, "accumulate is 2, needed is 1, as the state is carried on"),
    "best by accuracy": (BANANAS, {"best_by": "accuracy"}, "best_by is accuracy, needed is loss"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_in_a_line(tmp_path, capsys, name):
    content, changes, wanted = REFUSED[name]
    path = tmp_path / "book.txt" if content is NONE else a_file(tmp_path, content)
    assert main(words(path, tmp_path / "run", **changes)) == 2
    said = capsys.readouterr()
    assert wanted in said.err and said.err.count("\n") == 1 and not said.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["generate", "RUN", "--prompt", "x"], "prompt has 'x', which the model never saw"),
        (["generate", "RUN", "--prompt", ""], "prompt is empty"),
        (
            ["generate", "RUN", "--prompt", "b", "--temperature", "-1"],
            "temperature is -1.0, needed is a number from 0",
        ),
        (["generate", "RUN", "--prompt", "b", "--temperature", "nan"], "temperature is nan"),
        (["generate", "RUN", "--prompt", "b", "--top-p", "0"], "top_p is 0.0, needed is a number above 0 and up to 1"),
        (["generate", "RUN", "--prompt", "b", "--top-p", "1.1"], "top_p is 1.1"),
        (["generate", "RUN", "--prompt", "b", "--length", "0"], "length is 0, needed is a number from 1"),
        (["generate", "RUN", "--prompt", "b", "--seed", "-1"], "seed is -1"),
        (["predict", "RUN", "b"], "text is gone on with and has no classes: see gatewise generate --help"),
        (["inspect", "RUN"], "gatewise inspect is for forecasts and tasks with classes, and text is neither"),
        (["evaluate", "RUN", "--figure", "a.png"], "a confusion matrix is for tasks with classes, and text has none"),
    ],
)
def test_what_does_not_fit_a_run_is_refused_in_a_line(bananas, capsys, given, wanted):
    assert main([str(bananas) if word == "RUN" else word for word in given]) == 2
    said = capsys.readouterr().err
    assert wanted in said and said.count("\n") == 1


def test_generate_needs_a_run_of_text(tmp_path, capsys):
    run = tmp_path / "sum"
    assert main(["train", "digit-sum", "--length", "5", "--epochs", "1", "--threads", "1", "--run", str(run)]) == 0
    assert main(["generate", str(run), "--prompt", "1"]) == 2
    assert "is a run of digit-sum, needed is one of text: see gatewise predict" in capsys.readouterr().err


def test_the_loaded_model_reads_numbers(bananas):
    model = gatewise.load(bananas)
    assert not model.training and model.vocabulary.characters == " abn"
    logits, state = model(torch.from_numpy(model.vocabulary.encode("ba"))[None])
    assert logits.shape == (1, 2, 5) and logits[0, 1].argmax() == 3 and len(state) == 2
    assert dataclasses.is_dataclass(model.vocabulary)
