"""What a graph is judged by: simulated markets for the bundled model, recorded inputs for any other.

A recording is a safetensors file with `input`, float32 [N, ...], and, if the right answers are known, `label`, int64
[N]: the index of the right class. Without labels the fp32 graph's own answers count as right, so that accuracy is
agreement with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors.numpy import load_file

from .graph import probabilities_of, run, seed_of, session
from .windows import HELD_OUT, TRAINING, VALIDATION

CALIBRATION_SAMPLES = 1_024
_BATCH = 32


class Samples(Protocol):
    """Inputs and their labels. `Windows` are samples, and so is a recording."""

    labels: np.ndarray
    """Int64 [samples]."""
    market: np.ndarray
    """What each came from, int64 [samples]: those of one market are no independent witnesses."""

    def __len__(self) -> int: ...

    def inputs(self, which: np.ndarray) -> np.ndarray:
        """The chosen inputs, float32 [len(which), ...]."""

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """All inputs in order, at most `size` at a time."""


@dataclass(frozen=True)
class Recording:
    """Samples from a file, each an independent witness."""

    recorded: np.ndarray
    labels: np.ndarray

    @property
    def market(self) -> np.ndarray:
        return np.arange(len(self))

    def __len__(self) -> int:
        return len(self.recorded)

    def inputs(self, which: np.ndarray) -> np.ndarray:
        return self.recorded[which]

    def batches(self, size: int) -> Iterator[np.ndarray]:
        for start in range(0, len(self), size):
            yield self.recorded[start : start + size]


@dataclass(frozen=True)
class Material:
    """What makes and judges a variant; no sample serves two purposes."""

    calibration: np.ndarray
    """Inputs [samples, ...] from which ranges are read."""
    selection: Samples
    """Picks among candidates."""


def material(fp32: Path, recording: Path | None) -> Material:
    """Simulated markets, or, of a recording, its first quarter for calibration and its second for selection."""
    if recording is not None:
        samples = _read(recording, fp32)
        quarter = len(samples) // 4
        calibration, selection = np.arange(quarter), np.arange(quarter, 2 * quarter)
        return Material(
            samples.inputs(calibration)[:CALIBRATION_SAMPLES],
            Recording(samples.inputs(selection), samples.labels[selection]),
        )
    seed = _market_seed(fp32)
    training = TRAINING.make(seed)
    chosen = np.random.default_rng([seed, CALIBRATION_SAMPLES]).choice(len(training), CALIBRATION_SAMPLES, False)
    return Material(training.inputs(np.sort(chosen)), VALIDATION.make(seed))


def held_out(fp32: Path, recording: Path | None) -> Samples:
    """Held-out markets, or the second half of a recording: what had no say in making a variant."""
    if recording is not None:
        samples = _read(recording, fp32)
        half = np.arange(len(samples) // 4 * 2, len(samples))
        return Recording(samples.inputs(half), samples.labels[half])
    return HELD_OUT.make(_market_seed(fp32))


def _market_seed(fp32: Path) -> int:
    try:
        return seed_of(fp32)
    except KeyError:
        raise ValueError(f"{fp32} names no seed of simulated markets; give it samples with --samples FILE") from None


def _read(path: Path, fp32: Path) -> Recording:
    tensors = load_file(path)
    if "input" not in tensors or len(tensors["input"]) < 8:
        raise ValueError(f"{path}: holds {', '.join(tensors) or 'nothing'}; expected `input` with 8 samples or more")
    recording = Recording(tensors["input"], tensors.get("label", np.empty(0, np.int64)))
    if "label" not in tensors:
        runner = session(fp32)
        answers = [probabilities_of(run(runner, batch)).argmax(axis=1) for batch in recording.batches(_BATCH)]
        recording = Recording(recording.recorded, np.concatenate(answers))
    if recording.labels.shape != (len(recording),):
        raise ValueError(f"{path}: label: {list(recording.labels.shape)}; expected [{len(recording)}], one an input")
    return recording
