"""Judges the variants on markets that no training ever saw.

Needs neither PyTorch nor the onnx package. The held-out windows are made again from the seed that the graph carries.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .graph import OUTPUTS, VARIANTS, run, run_alone, seed_of, session
from .windows import CHANNELS, CLASSES, HELD_OUT, STEPS, Windows

_BATCH = 32
_BOOTSTRAP_DRAWS = 2_000
_MIXED_BATCHES = 150
_LARGEST_MIXED_BATCH = 64


@dataclass(frozen=True)
class Verdict:
    """How one variant does."""

    correct: np.ndarray
    """For each window, bool [windows]."""
    recall: tuple[float, ...]
    """Share of the windows of each class that were recognised."""
    company: float
    """The largest change of any output value that batch mates or batch size made."""

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


@dataclass(frozen=True)
class Report:
    """All variants on the same windows."""

    windows: int
    markets: int
    majority: float
    """What always answering the commonest class would score."""
    verdicts: dict[str, Verdict]
    drop_interval: tuple[float, float]
    """95 % confidence interval of `drop`, percentage points."""

    @property
    def drop(self) -> float:
        """Percentage points of accuracy that INT8 costs; negative when it gains."""
        return 100 * (self.verdicts["fp32"].accuracy - self.verdicts["int8"].accuracy)

    def figures(self) -> dict[str, float]:
        """The figures a machine reads."""
        return {
            "fp32_accuracy": round(self.verdicts["fp32"].accuracy, 5),
            "int8_accuracy": round(self.verdicts["int8"].accuracy, 5),
            "drop_pp": round(self.drop, 3),
            "int8_batch_max_abs_diff": self.verdicts["int8"].company,
        }

    def table(self) -> str:
        """The same for a person, as a Markdown table."""
        rows = [
            f"| variant | accuracy | {' | '.join(f'recall {name}' for name in CLASSES)} | change by batch mates |",
            "|---|---|" + "---|" * (len(CLASSES) + 1),
        ]
        for name, verdict in self.verdicts.items():
            recall = " | ".join(f"{value:.1%}" for value in verdict.recall)
            rows.append(f"| {name} | {verdict.accuracy:.2%} | {recall} | {verdict.company:.1e} |")
        low, high = self.drop_interval
        return "\n".join(rows) + (
            f"\n\n{self.windows:,} held-out windows of {self.markets} markets. Chance: {1 / len(CLASSES):.1%};"
            f" always the commonest class: {self.majority:.1%}."
            f"\nINT8 costs {self.drop:+.2f} percentage points of accuracy (95 % interval {low:+.2f} to {high:+.2f},"
            "\npaired by window, bootstrapped over markets)."
        )


def judge(version: Path) -> Report:
    """Runs every variant in `version` over the held-out windows."""
    seed = seed_of(version / VARIANTS["fp32"])
    windows = HELD_OUT.make(seed)
    random = np.random.default_rng([seed, _BOOTSTRAP_DRAWS])
    verdicts = {variant: _verdict(version / file, windows, seed) for variant, file in VARIANTS.items()}
    return Report(
        windows=len(windows),
        markets=windows.features.shape[0],
        majority=float(np.bincount(windows.labels).max() / len(windows)),
        verdicts=verdicts,
        drop_interval=_drop_interval(verdicts["fp32"].correct, verdicts["int8"].correct, windows.market, random),
    )


def _verdict(path: Path, windows: Windows, seed: int) -> Verdict:
    runner = session(path)
    answers = np.concatenate([run(runner, batch)["prediction"].argmax(axis=1) for batch in windows.batches(_BATCH)])
    correct = answers == windows.labels
    recall = tuple(float(correct[windows.labels == label].mean()) for label in range(len(CLASSES)))
    return Verdict(correct, recall, batch_dependence(path, windows, seed, _MIXED_BATCHES))


def batch_dependence(path: Path, windows: Windows, seed: int, batches: int) -> float:
    """The largest difference between an answer computed alone and the same input's answer in a random batch.

    A quarter of the batch mates are outliers: windows magnified up to a millionfold, all zero, or noise.
    """
    random = np.random.default_rng([seed, _LARGEST_MIXED_BATCH])
    ordinary = windows.inputs(random.choice(len(windows), 192, replace=False))
    magnified = windows.inputs(random.choice(len(windows), 48)) * 10 ** random.uniform(1, 6, (48, 1, 1))
    noise = random.normal(scale=5.0, size=(15, CHANNELS, STEPS))
    pool = np.concatenate([ordinary, magnified, noise, np.zeros((1, CHANNELS, STEPS))]).astype(np.float32)
    runner = session(path)
    alone = run_alone(runner, pool)
    largest = 0.0
    for _ in range(batches):
        which = random.choice(len(pool), random.integers(1, _LARGEST_MIXED_BATCH + 1))
        together = run(runner, pool[which])
        largest = max(largest, *(float(np.abs(together[name] - alone[name][which]).max()) for name in OUTPUTS))
    return largest


def _drop_interval(
    fp32: np.ndarray, int8: np.ndarray, market: np.ndarray, random: np.random.Generator
) -> tuple[float, float]:
    # Windows of one market share its weather, so markets are drawn, not windows.
    difference = np.bincount(market, fp32.astype(float) - int8)
    size = np.bincount(market)
    drawn = random.integers(size.size, size=(_BOOTSTRAP_DRAWS, size.size))
    drops = 100 * difference[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    low, high = np.quantile(drops, [0.025, 0.975])
    return float(low), float(high)
