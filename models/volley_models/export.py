"""Writes the trained network as an fp32 ONNX graph.

The graph is built operator by operator rather than traced: it then holds one node for each idea (no shape
arithmetic, no initial states computed from the batch size), which is what graph optimisers and quantisers recognise,
and it is checked against PyTorch before it is kept.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from .graph import INPUT, OUTPUTS, session
from .network import CLIP, FEATURES, KERNEL, CnnLstm
from .windows import CHANNELS, CLASSES, STEPS, channel_names

_OPSET = 17
_IR_VERSION = 8
_TOLERANCE = 1e-5


def export(network: CnnLstm, seed: int, path: Path) -> None:
    """Writes `network` to `path`: `input` [batch, 50, 60] to `features` [batch, 128] and `prediction` [batch, 3].

    Raises `ValueError` when ONNX Runtime and PyTorch differ by more than 1e-5 on noise.
    """
    model = helper.make_model(
        _graph({name: value.numpy() for name, value in network.state_dict().items()}),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="volley_models",
    )
    helper.set_model_props(
        model, {"classes": ",".join(CLASSES), "channels": ",".join(channel_names()), "seed": str(seed)}
    )
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    _verify(network, path)


def _graph(weights: dict[str, np.ndarray]) -> onnx.GraphProto:
    initialisers = {
        "mean": weights["mean"],
        "scale": weights["scale"],
        "clip_low": np.float32(-CLIP),
        "clip_high": np.float32(CLIP),
        "lstm.W": _gates_as_onnx(weights["lstm.weight_ih_l0"])[None],
        "lstm.R": _gates_as_onnx(weights["lstm.weight_hh_l0"])[None],
        "lstm.B": np.concatenate(
            [_gates_as_onnx(weights["lstm.bias_ih_l0"]), _gates_as_onnx(weights["lstm.bias_hh_l0"])]
        )[None],
        "direction": np.array([0], np.int64),
        **{name: weights[name] for name in weights if name.startswith(("conv", "head"))},
    }
    same = {"kernel_shape": [KERNEL], "pads": [KERNEL // 2, KERNEL // 2]}
    features, prediction = OUTPUTS
    nodes = [
        helper.make_node("Sub", [INPUT, "mean"], ["centred"], "centre"),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"], "scale"),
        helper.make_node("Clip", ["scaled", "clip_low", "clip_high"], ["clipped"], "clip"),
        helper.make_node("Conv", ["clipped", "conv0.weight", "conv0.bias"], ["conv0.sum"], "conv0", **same),
        helper.make_node("Relu", ["conv0.sum"], ["conv0.out"], "conv0.relu"),
        helper.make_node("Conv", ["conv0.out", "conv1.weight", "conv1.bias"], ["conv1.sum"], "conv1", **same),
        helper.make_node("Relu", ["conv1.sum"], ["conv1.out"], "conv1.relu"),
        # ONNX's LSTM wants time first. Its initial states are left out, which means zero.
        helper.make_node("Transpose", ["conv1.out"], ["steps"], "time_first", perm=[2, 0, 1]),
        helper.make_node("LSTM", ["steps", "lstm.W", "lstm.R", "lstm.B"], ["", "last"], "lstm", hidden_size=FEATURES),
        helper.make_node("Squeeze", ["last", "direction"], [features], "last_state"),
        helper.make_node("Gemm", [features, "head.weight", "head.bias"], ["logits"], "head", transB=1),
        helper.make_node("Softmax", ["logits"], [prediction], "softmax", axis=-1),
    ]
    return helper.make_graph(
        nodes,
        "cnn_lstm",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", CHANNELS, STEPS])],
        [
            helper.make_tensor_value_info(features, TensorProto.FLOAT, ["batch", FEATURES]),
            helper.make_tensor_value_info(prediction, TensorProto.FLOAT, ["batch", len(CLASSES)]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in initialisers.items()],
    )


def read(path: Path) -> CnnLstm:
    """The network that `export` wrote to `path`, or a pruned form of it.

    Raises `ValueError` when the graph is another's.
    """
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in graph.initializer}
    wanted = {"mean", "scale", "lstm.W", "lstm.R", "lstm.B"}
    wanted |= {f"{layer}.{part}" for layer in ("conv0", "conv1", "head") for part in ("weight", "bias")}
    if missing := wanted - set(constants):
        raise ValueError(f"{path}: lacks {', '.join(sorted(missing))}; expected a graph that `export` wrote")
    channels = constants["conv0.bias"].size, constants["conv1.bias"].size
    state = {name: constants[name] for name in wanted if not name.startswith("lstm")}
    state["lstm.weight_ih_l0"] = _gates_as_pytorch(constants["lstm.W"][0])
    state["lstm.weight_hh_l0"] = _gates_as_pytorch(constants["lstm.R"][0])
    input_bias, hidden_bias = np.split(constants["lstm.B"][0], 2)
    state["lstm.bias_ih_l0"], state["lstm.bias_hh_l0"] = map(_gates_as_pytorch, (input_bias, hidden_bias))
    network = CnnLstm(constants["mean"], constants["scale"], channels)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return network.eval()


def _gates_as_onnx(stacked: np.ndarray) -> np.ndarray:
    """PyTorch stacks the gates as input, forget, cell, output; ONNX as input, output, forget, cell."""
    i, f, c, o = np.split(stacked, 4)
    return np.concatenate([i, o, f, c])


def _gates_as_pytorch(stacked: np.ndarray) -> np.ndarray:
    """The other way round."""
    i, o, f, c = np.split(stacked, 4)
    return np.concatenate([i, f, c, o])


def _verify(network: CnnLstm, path: Path) -> None:
    noise = np.random.default_rng(0).normal(scale=3.0, size=(8, CHANNELS, STEPS)).astype(np.float32)
    with torch.no_grad():
        features, logits = network(torch.from_numpy(noise))
    wanted = features.numpy(), logits.softmax(dim=1).numpy()
    got = session(path).run(list(OUTPUTS), {INPUT: noise})
    difference = max(float(np.abs(a - b).max()) for a, b in zip(wanted, got, strict=True))
    if difference > _TOLERANCE:
        raise ValueError(f"{path}: differs from PyTorch by {difference:.2e}, {_TOLERANCE:.0e} is allowed")
