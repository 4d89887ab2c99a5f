"""Makes the INT8 variant: convolutions and LSTM in eight bits, calibrated on training windows.

Activations are unsigned and weights signed, per output channel, which is the pairing that processors multiply fastest.
ONNX Runtime computes the convolutions. Their weights use seven of their eight bits: on x86 without VNNI its kernel adds
two products in sixteen bits, which full-range weights overflow, and the answer would depend on the machine. The LSTM is
Volley's operator `QLstm` (`crates/gpu-runtime/src/operators/qlstm.rs` defines it), which is exact with all eight bits.
ONNX Runtime's own INT8 LSTM takes one scale for a whole batch, so that a caller's answer would depend on its mates.
"""

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from .graph import INPUT, run, seed_of, session
from .windows import TRAINING, VALIDATION, Windows

DOMAIN = "volley"
HIDDEN_SCALE = 127
"""What `QLstm` multiplies its hidden state with before it rounds it."""
CALIBRATION_WINDOWS = 1_024
_BATCH = 64

_METHODS = {
    "min-max": (CalibrationMethod.MinMax, {}),
    "entropy": (CalibrationMethod.Entropy, {}),
    "percentile": (CalibrationMethod.Percentile, {"CalibPercentile": 99.99}),
}


def quantise(fp32: Path, int8: Path) -> None:
    """Writes to `int8` the quantised form of `fp32` that answers best on the validation markets.

    On equal accuracy the one closest to fp32 in its probabilities is taken. The graph's metadata names the method.
    """
    seed = seed_of(fp32)
    training, validation = TRAINING.make(seed), VALIDATION.make(seed)
    chosen = np.random.default_rng([seed, CALIBRATION_WINDOWS]).choice(len(training), CALIBRATION_WINDOWS, False)
    calibration = training.inputs(np.sort(chosen))
    baseline = _probabilities(fp32, validation)
    print(f"fp32: validation accuracy {_accuracy(baseline, validation):.4f}")
    candidates = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Shape inference only: the graph has nothing to simplify, and the optimiser would rename its nodes.
        quant_pre_process(str(fp32), str(prepared), skip_optimization=True, skip_symbolic_shape=True)
        for name, (method, extra) in _METHODS.items():
            path = Path(folder) / f"{name}.onnx"
            _quantise_with(method, extra, prepared, path, calibration)
            probabilities = _probabilities(path, validation)
            accuracy = _accuracy(probabilities, validation)
            distance = float(np.abs(probabilities - baseline).mean())
            print(f"int8, {name}: validation accuracy {accuracy:.4f}, mean change of a probability {distance:.5f}")
            candidates.append(((accuracy, -distance), name, path.read_bytes()))
    _, name, model = max(candidates)
    chosen_model = onnx.load_from_string(model)
    chosen_model.metadata_props.add(key="calibration", value=name)
    onnx.save(chosen_model, int8)


class _Reader(CalibrationDataReader):
    def __init__(self, inputs: np.ndarray) -> None:
        self._batches = iter(np.split(inputs, len(inputs) // _BATCH))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _quantise_with(method: CalibrationMethod, extra: dict, fp32: Path, int8: Path, calibration: np.ndarray) -> None:
    # The quantiser advises on steps that were taken, through the root logger.
    logging.disable(logging.WARNING)
    quantize_static(
        str(fp32),
        str(int8),
        _Reader(calibration),
        quant_format=QuantFormat.QDQ,
        # Relu is named so that the scales sit after it, and it vanishes into the convolution's own clamping.
        op_types_to_quantize=["Conv", "Relu"],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=method,
        extra_options=extra,
    )
    logging.disable(logging.NOTSET)
    model = onnx.load(int8)
    _quantise_lstm(model)
    onnx.save(model, int8)


def _quantise_lstm(model: onnx.ModelProto) -> None:
    """Replaces the LSTM, and the steps that bring fp32 values to it, by a `QLstm` over the convolution's integers."""
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = {node.name: node for node in graph.node}
    dequantise, time_first, lstm, last_state = (
        nodes[name] for name in ("conv1.out_DequantizeLinear", "time_first", "lstm", "last_state")
    )
    integers, input_scale, input_zero_point = dequantise.input
    _, w, r, b = lstm.input
    weights, scale, shift = _quantise_gates(constants[w][0] * constants[input_scale], constants[r][0] / HIDDEN_SCALE)
    tensors = {"lstm.weights": weights, "lstm.scale": scale, "lstm.bias": np.add(*np.split(constants[b][0], 2))}
    replacements = [
        helper.make_node("Transpose", [integers], ["steps"], "step_by_step", perm=[0, 2, 1]),
        helper.make_node(
            "QLstm",
            ["steps", *tensors],
            last_state.output,
            "lstm",
            domain=DOMAIN,
            input_zero_point=int(constants[input_zero_point]),
            input_shift=shift,
        ),
    ]
    first = list(graph.node).index(dequantise)
    for node in (dequantise, time_first, lstm, last_state):
        graph.node.remove(node)
    for offset, node in enumerate(replacements):
        graph.node.insert(first + offset, node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    del graph.value_info[:]  # It tells of tensors that are gone.
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _quantise_gates(input_weights: np.ndarray, hidden_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Weights of both kinds as int8 side by side, the scale they share in each row, and the power of two for which
    those of the input count, chosen so that both kinds use their eight bits."""
    input_range, hidden_range = (np.abs(weights).max(axis=1) for weights in (input_weights, hidden_weights))
    shift = max(0, int(np.log2(np.mean(input_range) / np.mean(hidden_range))))
    scale = np.maximum(input_range / 2**shift, hidden_range) / 127
    sides = [input_weights / (scale[:, None] * 2**shift), hidden_weights / scale[:, None]]
    return np.concatenate(sides, axis=1).round().astype(np.int8), scale.astype(np.float32), shift


def _probabilities(path: Path, windows: Windows) -> np.ndarray:
    runner = session(path)
    return np.concatenate([run(runner, batch)["prediction"] for batch in windows.batches(_BATCH)])


def _accuracy(probabilities: np.ndarray, windows: Windows) -> float:
    return float((probabilities.argmax(axis=1) == windows.labels).mean())
