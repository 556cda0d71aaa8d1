"""The ONNX standard's own cases for its LSTM, computed by gatewise.LSTM."""

import warnings

import pytest
import torch

import gatewise
from compare import assert_same

pytest.importorskip("onnx", reason="onnx is not installed, which brings the standard's cases: pip install onnx")
from onnx.backend.test.case.node import collect_testcases

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the cases of other operators overflow on purpose
    CASES = {case.name: case for case in collect_testcases("LSTM")}


def in_our_order(stacked, blocks):
    """Rows that ONNX stacks as i, o, f and, but for peepholes, the candidate, as i, f, g, o."""
    i, o, f, *g = stacked.chunk(blocks)
    return torch.cat([i, f, *g, o])


def lstm_of(sizes, given, reverse):
    """A gatewise.LSTM with the weights of a node; one that only reads backward is the reverse half of two."""
    lstm = gatewise.LSTM(*sizes, bidirectional=reverse or len(given["W"]) == 2, peephole="P" in given)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.zero_()
        for number, suffix in enumerate(["_reverse"] if reverse else ["", "_reverse"][: len(given["W"])]):
            own = {"weight_ih": in_our_order(given["W"][number], 4), "weight_hh": in_our_order(given["R"][number], 4)}
            if "B" in given:
                biases = given["B"][number].chunk(2)
                own |= {name: in_our_order(bias, 4) for name, bias in zip(["bias_ih", "bias_hh"], biases, strict=True)}
            if "P" in given:
                own["weight_ch"] = in_our_order(given["P"][number], 3)
            for kind, value in own.items():
                getattr(lstm, f"{kind}_l0{suffix}").copy_(value)
    return lstm


@pytest.mark.parametrize("name", CASES)
def test_the_standards_case(name):
    (node,), ((inputs, outputs),) = CASES[name].model.graph.node, CASES[name].data_sets
    attributes = {a.name: a.i or a.s.decode() for a in node.attribute}
    assert attributes.keys() <= {"hidden_size", "direction", "layout"}
    given = dict(zip([label for label in node.input if label], map(torch.tensor, inputs), strict=True))
    x, reverse, batch_first = given["X"], attributes.get("direction") == "reverse", attributes.get("layout", 0) == 1
    lstm = lstm_of((x.size(-1), attributes["hidden_size"]), given, reverse)
    x = x.transpose(0, 1) if batch_first else x
    state = None
    if "initial_h" in given:
        assert not reverse, "the other half has no state here"
        state = given["initial_h"], given["initial_c"]
    output, (h_n, c_n) = lstm(x, state, lengths=given.get("sequence_lens"))
    own = slice(1, 2) if reverse else slice(None)
    y = output.unflatten(-1, (-1, lstm.hidden_size)).transpose(1, 2)[:, own]  # (T, D, B, H)
    found = {"Y": y, "Y_h": h_n[own], "Y_c": c_n[own]}
    if batch_first:
        found = {"Y": y.permute(2, 0, 1, 3)} | {label: found[label].transpose(0, 1) for label in ("Y_h", "Y_c")}
    for label, expected in zip([label for label in node.output if label], outputs, strict=True):
        assert_same(found[label].detach(), torch.tensor(expected), label)


def test_the_cases_are_those_that_we_know():
    assert {"test_lstm_defaults", "test_lstm_with_initial_bias", "test_lstm_with_peepholes", "test_lstm_batchwise"} <= {
        *CASES
    }
