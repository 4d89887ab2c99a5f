"""Makes the models of the tests that need a run to fail, to stall or to hang: fault.onnx, and echo.onnx that never does.

    python fault.py    # with the package onnx; writes both beside this file

Its operator Fault, of the example `faulty_operators`, hands its input on unless it is told otherwise. Clip without
bounds hands it on too, and ONNX Runtime does not optimise it away: a run can be ended between the two. Both models
answer with their question.
"""

from pathlib import Path

from onnx import TensorProto, helper, save


def write(name: str, nodes: list, opsets: list) -> None:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets, producer_name="volley")
    save(model, Path(__file__).with_name(f"{name}.onnx"))


standard, own = helper.make_opsetid("", 17), helper.make_opsetid("volley.test", 1)
fault = helper.make_node("Fault", ["x"], ["passed"], domain="volley.test")
write("fault", [fault, helper.make_node("Clip", ["passed"], ["y"])], [standard, own])
write("echo", [helper.make_node("Clip", ["x"], ["y"])], [standard])
