"""Makes external.onnx, whose weights are in another file, external.bin: y is x times a matrix.

    python external.py    # with the packages onnx and numpy; writes both beside this file
"""

from pathlib import Path

import numpy
from onnx import TensorProto, helper, numpy_helper, save

# More than the few bytes that ONNX Runtime treats as it treats none else.
weights = numpy.arange(4 * 16, dtype=numpy.float32).reshape(4, 16)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])],
    "external",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])],
    [numpy_helper.from_array(weights, "w")],
)
model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)], producer_name="volley")
path = Path(__file__).with_suffix(".onnx")
path.with_suffix(".bin").unlink(missing_ok=True)
save(model, path, save_as_external_data=True, location="external.bin", size_threshold=0)
