"""ONNX Runtime: the same network as ONNX's own LSTM operator, forward only."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.bench.config import FormName
from gatewise.bench.peers import Call, Peer, Results
from gatewise.bench.work import Work

OPSET = 14
IR_VERSION = 8
"""Old enough for each ONNX Runtime of the last years."""


class OnnxRuntime(Peer):
    """A graph of ONNX's LSTM nodes, one a layer, run by ONNX Runtime on the CPU."""

    name = "onnxruntime"
    what = "ONNX Runtime, LSTM nodes, arrays in and out, as many threads as torch"

    def missing(self) -> str:
        """Need onnxruntime to run, and onnx to write the graph."""
        absent = [name for name in ("onnxruntime", "onnx") if find_spec(name) is None]
        return f"not installed (pip install {' '.join(absent)})" if absent else ""

    def version(self) -> str:
        """Tell ONNX Runtime's."""
        return str(import_module("onnxruntime").__version__)

    def refuses(self, form: FormName, kind: str) -> str:
        """Refuse training."""
        return super().refuses(form, kind) or ("inference only" if kind == "training" else "")

    def calls(self, work: Work) -> Mapping[str, Call]:
        """Make the call ``forward``."""
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        session = runtime.InferenceSession(_model(work), options, providers=["CPUExecutionProvider"])
        D, L = work.size.D, work.size.L
        feeds = {"x": work.x.numpy()}
        for layer in range(L):
            rows = slice(layer * D, (layer + 1) * D)
            feeds |= {f"h_0_{layer}": work.h_0[rows].numpy(), f"c_0_{layer}": work.c_0[rows].numpy()}

        def results(returned: Any) -> Results:
            output, *finals = (torch.from_numpy(np.array(array)) for array in returned)
            return {"output": output, "h_n": torch.cat(finals[::2]), "c_n": torch.cat(finals[1::2])}

        return {"forward": Call(lambda: session.run(None, feeds), results)}


def _model(work: Work) -> bytes:
    """Write the network as an ONNX graph.

    The operator's output is (T, D, B, H) and the next layer reads (T, B, D·H): a transposition and a reshaping between.
    """
    onnx: Any = import_module("onnx")
    helper, to_array = onnx.helper, import_module("onnx.numpy_helper").from_array
    B, T, I, H, L, D = work.size
    FLOAT = onnx.TensorProto.FLOAT
    nodes, constants = [], [to_array(np.array([T, B, D * H], dtype=np.int64), "shape")]
    inputs = [helper.make_tensor_value_info("x", FLOAT, [T, B, I])]
    outputs = [helper.make_tensor_value_info(f"x_{L}", FLOAT, [T, B, D * H])]
    read = "x"
    for layer in range(L):
        suffixes = [f"_l{layer}{'_reverse' * d}" for d in range(D)]
        for letter, name in (("W", "weight_ih"), ("R", "weight_hh")):
            weights = torch.stack([_in_onnx_order(work.lstm.get_parameter(name + s)) for s in suffixes])
            constants.append(to_array(weights.numpy(), f"{letter}_{layer}"))
        biases = [
            torch.cat([_in_onnx_order(work.lstm.get_parameter(name + s)) for name in ("bias_ih", "bias_hh")])
            for s in suffixes
        ]
        constants.append(to_array(torch.stack(biases).numpy(), f"B_{layer}"))
        weight_names = [f"{letter}_{layer}" for letter in "WRB"]
        states, finals = [f"h_0_{layer}", f"c_0_{layer}"], [f"h_n_{layer}", f"c_n_{layer}"]
        inputs += [helper.make_tensor_value_info(name, FLOAT, [D, B, H]) for name in states]
        outputs += [helper.make_tensor_value_info(name, FLOAT, [D, B, H]) for name in finals]
        direction = "bidirectional" if D == 2 else "forward"
        nodes += [
            helper.make_node(
                "LSTM", [read, *weight_names, "", *states], [f"y_{layer}", *finals], hidden_size=H, direction=direction
            ),
            helper.make_node("Transpose", [f"y_{layer}"], [f"z_{layer}"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", [f"z_{layer}", "shape"], [f"x_{layer + 1}"]),
        ]
        read = f"x_{layer + 1}"
    graph = helper.make_graph(nodes, "lstm", inputs, outputs, constants)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _in_onnx_order(weight: Tensor) -> Tensor:
    """Rows of i, o, f, g from those of i, f, g, o."""
    i, f, g, o = weight.detach().chunk(4)
    return torch.cat([i, o, f, g])
