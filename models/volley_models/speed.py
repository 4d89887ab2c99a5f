"""How fast ONNX Runtime alone answers, by batch size."""

import time
from pathlib import Path

import numpy as np

from .graph import VARIANTS, run, session
from .windows import CHANNELS, STEPS

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
_ROUNDS = 40
_WINDOWS_PER_ROUND = 64


def measure(version: Path) -> dict[str, dict[int, float]]:
    """Windows per second of each variant at each batch size, on one thread: the best of many short rounds.

    The best, since on a shared machine whatever disturbs a round only makes it slower.
    """
    sessions = {variant: session(version / file) for variant, file in VARIANTS.items()}
    best = {variant: dict.fromkeys(BATCH_SIZES, 0.0) for variant in sessions}
    for _ in range(_ROUNDS):
        for size in BATCH_SIZES:
            inputs = np.random.default_rng(size).normal(size=(size, CHANNELS, STEPS)).astype(np.float32)
            for variant, runner in sessions.items():
                rate = _rate(runner, inputs)
                best[variant][size] = max(best[variant][size], rate)
    return best


def _rate(runner, inputs: np.ndarray) -> float:
    runs = _WINDOWS_PER_ROUND // len(inputs)
    started = time.perf_counter()
    for _ in range(runs):
        run(runner, inputs)
    return runs * len(inputs) / (time.perf_counter() - started)


def table(speeds: dict[str, dict[int, float]]) -> str:
    """Windows per second as a Markdown table."""
    variants = list(speeds)
    rows = [f"| batch | {' | '.join(variants)} | int8 / fp32 |", "|---|" + "---|" * (len(variants) + 1)]
    for size in BATCH_SIZES:
        rates = " | ".join(f"{speeds[variant][size]:,.0f}" for variant in variants)
        rows.append(f"| {size} | {rates} | {speeds['int8'][size] / speeds['fp32'][size]:.2f} |")
    return "\n".join(rows)
