"""Makes the INT8 variant: the convolutions in eight bits, calibrated on training windows.

Activations are unsigned and weights signed, per output channel, since that pairing is the one ONNX Runtime fuses into
integer convolutions on the CPU. Weights use seven of their eight bits: on x86 without VNNI the kernel adds two products
in sixteen bits, which full-range weights overflow, and the answer would depend on the machine. The LSTM stays in fp32:
ONNX Runtime's dynamic INT8 LSTM takes one scale for a whole batch, so that a caller's answer would depend on its mates.
"""

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from .graph import INPUT, run, seed_of, session
from .windows import TRAINING, VALIDATION, Windows

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


def _probabilities(path: Path, windows: Windows) -> np.ndarray:
    runner = session(path)
    return np.concatenate([run(runner, batch)["prediction"] for batch in windows.batches(_BATCH)])


def _accuracy(probabilities: np.ndarray, windows: Windows) -> float:
    return float((probabilities.argmax(axis=1) == windows.labels).mean())
