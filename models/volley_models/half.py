"""Makes the fp16 variant: half the bytes, for devices that multiply halves.

The converter is the one in ONNX Runtime's wheel. Inputs and outputs stay fp32, so that callers need not know. What
comes before the first weighted operator stays fp32 too: raw inputs may be large, and a half has eleven digits of binary
to tell them apart until they are centred and scaled.

ONNX Runtime's CPU provider has no fp16 kernel for most operators and casts to fp32 around them, so that on a CPU the
variant is smaller, and no faster.
"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16

_WEIGHTED = {"Conv", "Gemm", "MatMul", "LSTM", "GRU", "RNN"}


def halve(fp32: Path, fp16: Path) -> None:
    """Writes to `fp16` the form of `fp32` that computes in halves from its first weighted operator on.

    Raises `ValueError` when the graph has none.
    """
    model = onnx.load(fp32)
    operators = [node.op_type for node in model.graph.node]
    first = next((index for index, operator in enumerate(operators) if operator in _WEIGHTED), None)
    if first is None:
        raise ValueError(f"{fp32}: has {', '.join(sorted(set(operators)))}; expected one of {', '.join(_WEIGHTED)}")
    # The converter goes by names, so each step before the first needs one.
    for index, node in enumerate(model.graph.node[:first]):
        node.name = node.name or f"before_{index}"
    kept = [node.name for node in model.graph.node[:first]]
    halved = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    _remove_round_trips(halved.graph)
    onnx.save(halved, fp16)


def _remove_round_trips(graph: onnx.GraphProto) -> None:
    """Lets what reads an fp32 value cast to half and back read the value itself: the converter casts around each step
    that stays fp32, and loses there what staying is for."""
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    back = [node for node in casts.values() if _becomes(node, TensorProto.FLOAT) and node.input[0] in casts]
    for cast in back:
        there = casts[cast.input[0]]
        if not _becomes(there, TensorProto.FLOAT16):
            continue
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name == cast.output[0]:
                    node.input[index] = there.input[0]
    needed = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    # Of a round trip the way back goes first, and then the way there, unless halves are read too.
    for cast in reversed([node for node in graph.node if node.op_type == "Cast"]):
        if cast.output[0] not in needed:
            graph.node.remove(cast)
            needed = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}


def _becomes(cast: onnx.NodeProto, kind: int) -> bool:
    return helper.get_attribute_value(cast.attribute[0]) == kind
