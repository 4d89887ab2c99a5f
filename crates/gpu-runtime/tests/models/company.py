"""Makes models whose answer to a row is not that row's alone: mean.onnx takes the mean of the batch from each row,
dynamic.onnx rounds all rows to the steps of one scale, and chance.onnx adds noise.

    python company.py    # with the package onnx; writes all beside this file
"""

from pathlib import Path

from onnx import TensorProto, helper, numpy_helper, save
import numpy


def write(name: str, nodes: list, initializers: list = ()) -> None:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets, producer_name="volley")
    save(model, Path(__file__).with_name(f"{name}.onnx"))


mean = helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1)
write("mean", [mean, helper.make_node("Sub", ["x", "mean"], ["y"])])

quantize = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"])
# Between the two, so that they are not taken for nothing.
turn = helper.make_node("Gather", ["q", "order"], ["turned"], axis=1)
order = numpy_helper.from_array(numpy.array([3, 2, 1, 0], dtype=numpy.int64), "order")
write("dynamic", [quantize, turn, helper.make_node("DequantizeLinear", ["turned", "scale", "zero"], ["y"])], [order])

noise = helper.make_node("RandomUniformLike", ["x"], ["noise"])
write("chance", [noise, helper.make_node("Add", ["x", "noise"], ["y"])])
