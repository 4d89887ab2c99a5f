"""How fast ONNX Runtime alone answers, by batch size."""

import time
from pathlib import Path

import numpy as np

from .graph import BASELINE, input_of, run, session, variants_in

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
_ROUNDS = 40
_SAMPLES_PER_ROUND = 64


def measure(version: Path) -> dict[str, dict[int, float]]:
    """Samples per second of each variant at each batch size, on one thread: the best of many short rounds.

    The seconds are the thread's own on a processor, and the best round counts, since whatever else runs on a shared
    machine only makes one slower.
    """
    sessions = {variant: session(path) for variant, path in variants_in(version).items()}
    shape = sample_shape(sessions[BASELINE])
    best = {variant: dict.fromkeys(BATCH_SIZES, 0.0) for variant in sessions}
    for _ in range(_ROUNDS):
        for size in BATCH_SIZES:
            inputs = np.random.default_rng(size).normal(size=(size, *shape)).astype(np.float32)
            for variant, runner in sessions.items():
                rate = _rate(runner, inputs)
                best[variant][size] = max(best[variant][size], rate)
    return best


def sample_shape(runner) -> list[int]:
    """Of one input, without the batch.

    Raises `ValueError` when more than the batch is left open.
    """
    shape = runner.get_inputs()[0].shape
    if not all(isinstance(size, int) for size in shape[1:]):
        raise ValueError(f"{input_of(runner)} has the shape {shape}; expected fixed sizes after the batch")
    return shape[1:]


def _rate(runner, inputs: np.ndarray) -> float:
    runs = _SAMPLES_PER_ROUND // len(inputs)
    started = time.thread_time()
    for _ in range(runs):
        run(runner, inputs)
    return runs * len(inputs) / (time.thread_time() - started)


def table(speeds: dict[str, dict[int, float]]) -> str:
    """Samples per second as a Markdown table, and how many times fp32's that is."""
    rows = [f"| batch | {' | '.join(speeds)} |", "|---|" + "---|" * len(speeds)]
    for size in BATCH_SIZES:
        rates = (f"{rates[size]:,.0f} ({rates[size] / speeds[BASELINE][size]:.2f})" for rates in speeds.values())
        rows.append(f"| {size} | {' | '.join(rates)} |")
    return "\n".join(rows)
