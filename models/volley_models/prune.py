"""Takes away what matters least: single weights, or whole channels of convolutions.

Of importance is magnitude, after Han, Pool, Tran and Dally, "Learning both weights and connections for efficient neural
networks" (2015), and for channels Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets"
(2017), here with the weights that read a channel as well as those that make it.

Zeroed weights leave a file and its speed as they were, since ONNX Runtime's kernels are dense: they pay on another
runtime only, or in a compressed download. Channels that are gone are neither stored nor computed.

The units of an LSTM whose state is an output are not pruned: the width of an output is what callers rely on.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

CHANNEL_STEP = 8
"""Channels are kept in multiples of this, which is what kernels work through at a time."""

_WEIGHTS = {"Conv": (1,), "Gemm": (1,), "MatMul": (1,), "LSTM": (1, 2)}
"""Which inputs of an operator are weights."""


@dataclass(frozen=True)
class Thinned:
    """What became of one node or tensor."""

    name: str
    before: int
    after: int


def zero_weights(source: Path, target: Path, share: float) -> list[Thinned]:
    """Writes to `target` the graph with the smallest `share` of each tensor of weights zeroed; tells how many remain.

    Raises `ValueError` when there is no constant tensor of weights.
    """
    model = onnx.load(source)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    names = [
        node.input[index] for node in model.graph.node for index in _WEIGHTS.get(node.op_type, ()) if node.input[index]
    ]
    thinned = []
    for name in dict.fromkeys(name for name in names if name in constants):
        weights = numpy_helper.to_array(constants[name]).copy()
        smallest = np.argsort(np.abs(weights), axis=None, kind="stable")[: round(share * weights.size)]
        weights.flat[smallest] = 0
        constants[name].CopyFrom(numpy_helper.from_array(weights, name))
        thinned.append(Thinned(name, weights.size, int(np.count_nonzero(weights))))
    if not thinned:
        raise ValueError(f"{source}: has no constant weights of {', '.join(_WEIGHTS)}")
    onnx.save(model, target)
    return thinned


def remove_channels(source: Path, target: Path, share: float) -> list[Thinned]:
    """Writes to `target` the graph without the least important `share` of the channels of each convolution that only
    another convolution or an LSTM reads, through a Relu or not; tells how many of each are left.

    Raises `ValueError` when there is no such convolution.
    """
    model = onnx.load(source)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    thinned = []
    reads = [name for node in model.graph.node for name in node.input]
    for node in model.graph.node:
        reader = _reader(model.graph, node) if node.op_type == "Conv" and not _grouped(node) else None
        if reader is None:
            continue
        tensors = [*node.input[1:], reader.input[1]]
        if any(name not in constants or reads.count(name) > 1 for name in tensors):
            continue
        made = [numpy_helper.to_array(constants[name]) for name in node.input[1:]]
        read = numpy_helper.to_array(constants[reader.input[1]])
        axis = 1 if reader.op_type == "Conv" else 2
        importance = _length(made[0], 0) * _length(read, axis)
        wanted = importance.size * (1 - share)
        count = min(importance.size, max(1, round(wanted / CHANNEL_STEP)) * CHANNEL_STEP)
        kept = np.sort(np.argsort(-importance, kind="stable")[:count])
        for name, array in zip(node.input[1:], made, strict=True):
            constants[name].CopyFrom(numpy_helper.from_array(array[kept], name))
        constants[reader.input[1]].CopyFrom(numpy_helper.from_array(np.take(read, kept, axis=axis), reader.input[1]))
        thinned.append(Thinned(node.name, importance.size, count))
    if not thinned:
        raise ValueError(f"{source}: has no convolution whose channels only another convolution or an LSTM reads")
    del model.graph.value_info[:]  # It tells of shapes that are gone.
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)
    return thinned


def table(thinned: list[Thinned]) -> str:
    """What was pruned, as a Markdown table."""
    rows = ["| pruned | before | after |", "|---|---|---|"]
    return "\n".join(rows + [f"| {item.name} | {item.before:,} | {item.after:,} |" for item in thinned])


def _reader(graph: onnx.GraphProto, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The one convolution or LSTM that reads a convolution's channels, each from an axis known here."""
    outputs = {output.name for output in graph.output}
    passed = []
    while True:
        [name] = node.output[:1]
        readers = [reader for reader in graph.node if name in reader.input]
        if len(readers) != 1 or name in outputs:
            return None
        [node] = readers
        if node.op_type == "Conv" and "Transpose" not in passed and not _grouped(node):
            return node
        if node.op_type == "LSTM" and passed.count("Transpose") == 1:
            return node if node.input[0] == name else None
        brought = [helper.get_attribute_value(attribute) for attribute in node.attribute]
        if node.op_type != "Relu" and not (node.op_type == "Transpose" and brought == [[2, 0, 1]]):
            return None
        passed.append(node.op_type)


def _grouped(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i != 1 for attribute in node.attribute)


def _length(weights: np.ndarray, axis: int) -> np.ndarray:
    """Euclidean, of the weights of each index on `axis`."""
    others = tuple(other for other in range(weights.ndim) if other != axis)
    return np.sqrt(np.square(weights).sum(axis=others))
