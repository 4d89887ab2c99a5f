"""Makes the fp16 variant: half the bytes, for devices that multiply halves.

The converter is the one in ONNX Runtime's wheel. Inputs and outputs stay fp32, so that callers need not know. What
comes before the first weighted operator stays fp32 too: raw inputs may exceed 65,504, the largest half, and clipping
is what makes them small.

ONNX Runtime's CPU provider has no fp16 kernel for most operators and casts to fp32 around them, so that on a CPU the
variant is smaller, and no faster.
"""

from pathlib import Path

import onnx
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
    onnx.save(convert_float_to_float16(model, keep_io_types=True, node_block_list=kept), fp16)
