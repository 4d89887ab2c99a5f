"""A graph of the bundled one's kind, small enough to be made and quantised in a test, and samples for it."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

CHANNELS, STEPS, WIDTH, CLASSES = 8, 12, 16, 3
CLIP = 4.0
OFFSET = 1_000.0
"""Of the inputs, which the graph takes off again: a half holds no two numbers near it that are less than 0.5 apart."""


def write_model(path: Path, lstm_output: str = "last", dead: tuple[int, ...] = ()) -> None:
    """Centre, clip, two convolutions, an LSTM, a head. `last` reads the LSTM's last state, `all` every step's too.

    `dead` channels of the first convolution answer zero, whatever they read.
    """
    random = np.random.default_rng(1)
    first = random.normal(scale=0.2, size=(WIDTH, CHANNELS, 3))
    first[list(dead)] = 0
    weights = {
        "offset": np.float32(OFFSET),
        "low": np.float32(-CLIP),
        "high": np.float32(CLIP),
        "first.weight": first,
        "first.bias": np.zeros(WIDTH),
        "second.weight": random.normal(scale=0.2, size=(WIDTH, WIDTH, 3)),
        "second.bias": random.normal(scale=0.1, size=WIDTH),
        "W": random.normal(scale=0.3, size=(1, 4 * WIDTH, WIDTH)),
        "R": random.normal(scale=0.3, size=(1, 4 * WIDTH, WIDTH)),
        "B": random.normal(scale=0.1, size=(1, 8 * WIDTH)),
        "head.weight": random.normal(size=(CLASSES, WIDTH)),
        "head.bias": np.zeros(CLASSES),
    }
    tensors = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    tensors.append(numpy_helper.from_array(np.array([0], np.int64), "axis"))
    outputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", WIDTH]),
        helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["batch", CLASSES]),
    ]
    if lstm_output == "last":
        lstm = helper.make_node("LSTM", ["steps", "W", "R", "B"], ["", "state"], "lstm", hidden_size=WIDTH)
    else:
        lstm = helper.make_node("LSTM", ["steps", "W", "R", "B"], ["states", "state"], "lstm", hidden_size=WIDTH)
        outputs.insert(1, helper.make_tensor_value_info("states", TensorProto.FLOAT, [STEPS, 1, "batch", WIDTH]))
    nodes = [
        helper.make_node("Sub", ["window", "offset"], ["centred"], "centre"),
        helper.make_node("Clip", ["centred", "low", "high"], ["clipped"], "clip"),
        helper.make_node("Conv", ["clipped", "first.weight", "first.bias"], ["first.sum"], "first", pads=[1, 1]),
        helper.make_node("Relu", ["first.sum"], ["first.out"], "first.relu"),
        helper.make_node("Conv", ["first.out", "second.weight", "second.bias"], ["second.sum"], "second", pads=[1, 1]),
        helper.make_node("Relu", ["second.sum"], ["second.out"], "second.relu"),
        helper.make_node("Transpose", ["second.out"], ["steps"], "time_first", perm=[2, 0, 1]),
        lstm,
        helper.make_node("Squeeze", ["state", "axis"], ["features"], "last_state"),
        helper.make_node("Gemm", ["features", "head.weight", "head.bias"], ["logits"], "head", transB=1),
        helper.make_node("Softmax", ["logits"], ["classes"], "softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["batch", CHANNELS, STEPS])],
        outputs,
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def inputs(count: int = 128) -> np.ndarray:
    """Samples for it, float32 [count, 8, 12]."""
    return np.random.default_rng(2).normal(OFFSET, size=(count, CHANNELS, STEPS)).astype(np.float32)


def write_samples(path: Path, **others: np.ndarray) -> None:
    """A recording of `inputs()`."""
    save_file({"input": inputs(), **others}, path)
