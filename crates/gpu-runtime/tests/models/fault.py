"""Makes fault.onnx, the model of the tests that need a run to fail, to stall or to hang.

    python fault.py    # with the package onnx; writes fault.onnx beside this file

Its operator Fault, of the example `faulty_operators`, hands its input on unless it is told otherwise. Clip without
bounds hands it on too, and ONNX Runtime does not optimise it away: a run can be ended between the two.
"""

from pathlib import Path

from onnx import TensorProto, helper, save

graph = helper.make_graph(
    [
        helper.make_node("Fault", ["x"], ["passed"], domain="volley.test"),
        helper.make_node("Clip", ["passed"], ["y"]),
    ],
    "fault",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
)
opsets = [helper.make_opsetid("", 17), helper.make_opsetid("volley.test", 1)]
model = helper.make_model(graph, ir_version=8, opset_imports=opsets, producer_name="volley")
save(model, Path(__file__).with_suffix(".onnx"))
