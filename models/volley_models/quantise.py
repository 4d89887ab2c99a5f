"""Makes INT8 variants: convolutions and LSTM in eight bits.

`static` reads every range from calibration samples. `dynamic` is ONNX Runtime's own way to an INT8 LSTM, and here to be
compared with.

Activations are unsigned and weights signed, per output channel, which is the pairing that processors multiply fastest.
ONNX Runtime computes the convolutions. Their weights use seven of their eight bits: on x86 without VNNI its kernel adds
two products in sixteen bits, which full-range weights overflow, and the answer would depend on the machine. The LSTM is
Volley's operator `QLstm` (`crates/gpu-runtime/src/operators/qlstm.rs` defines it), which is exact with all eight bits,
and faster on AVX2 with seven.
ONNX Runtime's own INT8 LSTM takes one scale for a whole batch, so that a caller's answer would depend on its mates.
An LSTM that `QLstm` cannot stand for stays in fp32.
"""

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from .graph import input_of, probabilities_of, run, session
from .samples import Material, Samples

DOMAIN = "volley"
HIDDEN_SCALE = 127
"""What `QLstm` multiplies its hidden state with before it rounds it."""
_GROUP_SUM = 2**15 / HIDDEN_SCALE - 4
"""How large weights may be together whose products with a hidden state are added in sixteen bits, before rounding."""
_BATCH = 64

_METHODS = {
    "min-max": (CalibrationMethod.MinMax, {}),
    "entropy": (CalibrationMethod.Entropy, {}),
    "percentile": (CalibrationMethod.Percentile, {"CalibPercentile": 99.99}),
}


def quantise_static(fp32: Path, int8: Path, material: Material) -> None:
    """Writes to `int8` the quantised form of `fp32` that answers best on the selection.

    On equal accuracy the one closest to fp32 in its probabilities is taken. The graph's metadata names the method.
    """
    selection = material.selection
    baseline = _probabilities(fp32, selection)
    print(f"fp32: validation accuracy {_accuracy(baseline, selection):.4f}")
    candidates = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Shape inference only: the graph has nothing to simplify, and the optimiser would rename its nodes.
        quant_pre_process(str(fp32), str(prepared), skip_optimization=True, skip_symbolic_shape=True)
        for name, (method, extra) in _METHODS.items():
            path = Path(folder) / f"{name}.onnx"
            _quantise_with(method, extra, prepared, path, material.calibration)
            probabilities = _probabilities(path, selection)
            accuracy = _accuracy(probabilities, selection)
            distance = float(np.abs(probabilities - baseline).mean())
            print(f"int8, {name}: validation accuracy {accuracy:.4f}, mean change of a probability {distance:.5f}")
            candidates.append(((accuracy, -distance), name, path.read_bytes()))
    _, name, model = max(candidates)
    chosen_model = onnx.load_from_string(model)
    chosen_model.metadata_props.add(key="calibration", value=name)
    onnx.save(chosen_model, int8)


def quantise_dynamic(fp32: Path, int8: Path) -> None:
    """Writes to `int8` the form of `fp32` whose LSTMs and matrix products find their ranges as they run.

    Convolutions stay in fp32: ONNX Runtime's dynamic ones (`ConvInteger`) have no fast kernel. Answers of such an LSTM
    depend on batch mates.
    """
    logging.disable(logging.WARNING)
    quantize_dynamic(
        str(fp32), str(int8), op_types_to_quantize=["LSTM", "MatMul"], per_channel=True, weight_type=QuantType.QInt8
    )
    logging.disable(logging.NOTSET)


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, inputs: np.ndarray) -> None:
        self._name = name
        self._batches = iter([inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def _quantise_with(method: CalibrationMethod, extra: dict, fp32: Path, int8: Path, calibration: np.ndarray) -> None:
    # The quantiser advises on steps that were taken, through the root logger.
    logging.disable(logging.WARNING)
    quantize_static(
        str(fp32),
        str(int8),
        _Reader(input_of(session(fp32)), calibration),
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
    for lstm in [node for node in model.graph.node if node.op_type == "LSTM"]:
        _quantise_lstm(model, lstm)
    onnx.save(model, int8)


def _quantise_lstm(model: onnx.ModelProto, lstm: onnx.NodeProto) -> None:
    """Replaces an LSTM, and the steps that bring fp32 values to it, by a `QLstm` over the convolution's integers.

    It must be one that `QLstm` can stand for: forward, from zero states, its input dequantised and brought time first,
    its last hidden state all that is read. Others are left as they are.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    steps = _steps_around(graph, lstm)
    if steps is None or not all(name in constants for name in lstm.input[1:]):
        print(f"{lstm.name}: stays fp32; expected DequantizeLinear, Transpose, a plain LSTM, Squeeze of its last state")
        return
    dequantise, time_first, last_state = steps
    integers, input_scale, input_zero_point = dequantise.input
    _, w, r, b = lstm.input
    weights, scale, shift = _quantise_gates(constants[w][0] * constants[input_scale], constants[r][0] / HIDDEN_SCALE)
    bias = np.add(*np.split(constants[b][0], 2))
    tensors = {f"{lstm.name}.{part}": array for part, array in (("weights", weights), ("scale", scale), ("bias", bias))}
    [time_steps] = time_first.output
    replacements = [
        helper.make_node("Transpose", [integers], [time_steps], "step_by_step", perm=[0, 2, 1]),
        helper.make_node(
            "QLstm",
            [time_steps, *tensors],
            last_state.output,
            lstm.name,
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
    if DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _steps_around(graph: onnx.GraphProto, lstm: onnx.NodeProto) -> tuple[onnx.NodeProto, ...] | None:
    """The steps that `QLstm` takes over, or `None` where the graph is not of that shape."""
    made_by = {output: node for node in graph.node for output in node.output}
    read_by = {
        name: [node for node in graph.node if name in node.input] for node in graph.node for name in node.output
    }
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in lstm.attribute}
    time_first = made_by.get(lstm.input[0])
    dequantise = time_first and made_by.get(time_first.input[0])
    plain = set(attributes) <= {"hidden_size", "direction"} and attributes.get("direction", b"forward") == b"forward"
    if not plain or len(lstm.input) != 4 or len(lstm.output) < 2 or lstm.output[0] or any(lstm.output[2:]):
        return None
    readers = read_by[lstm.output[1]]
    if [node.op_type for node in readers] != ["Squeeze"] or lstm.output[1] in {output.name for output in graph.output}:
        return None
    if dequantise is None or dequantise.op_type != "DequantizeLinear" or len(dequantise.input) != 3:
        return None
    brought = [helper.get_attribute_value(attribute) for attribute in time_first.attribute]
    if time_first.op_type != "Transpose" or brought != [[2, 0, 1]]:
        return None
    # What another step reads too must stay.
    alone = len(read_by[dequantise.output[0]]) == 1 and len(read_by[time_first.output[0]]) == 1
    return (dequantise, time_first, readers[0]) if alone else None


def _quantise_gates(input_weights: np.ndarray, hidden_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Weights of both kinds as int8 side by side, the scale they share in each row, and the power of two for which
    those of the input count, chosen so that both kinds use their bits: the input's eight, the hidden state's seven.

    With seven, and together no larger than `_GROUP_SUM`, those for the hidden state spare AVX2 much of its work: the sums
    of their products fit sixteen bits. Such a sum is over two neighbours in every four of sixteen columns.
    """
    input_step = np.abs(input_weights).max(axis=1) / 127
    sums = np.abs(hidden_weights).reshape(len(hidden_weights), -1, 4, 2, 2).sum(axis=(2, 4))
    hidden_step = np.maximum(np.abs(hidden_weights).max(axis=1) / 63, sums.max(axis=(1, 2)) / _GROUP_SUM)
    shift = max(0, int(np.log2(np.mean(input_step) / np.mean(hidden_step))))
    scale = np.maximum(input_step / 2**shift, hidden_step)
    sides = [input_weights / (scale[:, None] * 2**shift), hidden_weights / scale[:, None]]
    return np.concatenate(sides, axis=1).round().astype(np.int8), scale.astype(np.float32), shift


def _probabilities(path: Path, samples: Samples) -> np.ndarray:
    runner = session(path)
    return np.concatenate([probabilities_of(run(runner, batch)) for batch in samples.batches(_BATCH)])


def _accuracy(probabilities: np.ndarray, samples: Samples) -> float:
    return float((probabilities.argmax(axis=1) == samples.labels).mean())
