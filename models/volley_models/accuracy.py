"""Judges the variants on samples that no training ever saw.

Needs neither PyTorch nor the onnx package. The bundled model's held-out windows are made again from the seed that the
graph carries.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .graph import BASELINE, probabilities_of, run, run_alone, session, variants_in
from .samples import Samples, held_out
from .windows import CLASSES

_BATCH = 32
_BOOTSTRAP_DRAWS = 2_000
_MIXED_BATCHES = 150
_LARGEST_MIXED_BATCH = 64
_SEED = 1
"""Of the draws that judging takes."""


@dataclass(frozen=True)
class Verdict:
    """How one variant does."""

    correct: np.ndarray
    """For each sample, bool [samples]."""
    recall: tuple[float, ...]
    """Share of the samples of each class that were recognised; of none is NaN."""
    drop: float
    """Percentage points of accuracy less than fp32's; negative when it gains."""
    drop_interval: tuple[float, float]
    """95 % confidence interval of `drop`, percentage points."""
    company: float
    """The largest change of any output value that batch mates or batch size made."""

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    def lost(self) -> str:
        """The accuracy lost with its interval, for a person."""
        low, high = self.drop_interval
        return f"{self.drop:+.2f} ({low:+.2f} to {high:+.2f})"


@dataclass(frozen=True)
class Report:
    """All variants on the same samples."""

    samples: int
    markets: int
    classes: int
    majority: float
    """What always answering the commonest class would score."""
    verdicts: dict[str, Verdict]

    def figures(self) -> dict[str, float]:
        """The figures a machine reads; `drop_pp` is that of `int8`."""
        figures = {f"{name}_accuracy": round(verdict.accuracy, 5) for name, verdict in self.verdicts.items()}
        if int8 := self.verdicts.get("int8"):
            figures |= {"drop_pp": round(int8.drop, 3), "int8_batch_max_abs_diff": int8.company}
        return figures

    def table(self) -> str:
        """The same for a person, as a Markdown table."""
        names = CLASSES if self.classes == len(CLASSES) else range(self.classes)
        rows = [
            f"| variant | accuracy | {' | '.join(f'recall {name}' for name in names)} | accuracy lost (95 % interval) |"
            " change by batch mates |",
            "|---|---|" + "---|" * (self.classes + 2),
        ]
        for name, verdict in self.verdicts.items():
            recall = " | ".join(f"{value:.1%}" for value in verdict.recall)
            lost = "" if name == BASELINE else verdict.lost()
            rows.append(f"| {name} | {verdict.accuracy:.2%} | {recall} | {lost} | {verdict.company:.1e} |")
        return "\n".join(rows) + f"\n\n{self.conditions()}"

    def conditions(self) -> str:
        """What the accuracies were measured on."""
        return (
            f"{self.samples:,} held-out samples of {self.markets} markets. Chance: {1 / self.classes:.1%};"
            f" always the commonest class: {self.majority:.1%}.\nAccuracy lost is fp32's less the variant's, in"
            " percentage points, paired by sample, bootstrapped over markets."
        )


def judge(version: Path, recording: Path | None = None) -> Report:
    """Runs every variant in `version` over the held-out samples: simulated ones unless a recording is given."""
    paths = variants_in(version)
    samples = held_out(paths[BASELINE], recording)
    classes = probabilities_of(run(session(paths[BASELINE]), samples.inputs(np.array([0])))).shape[1]
    verdicts: dict[str, Verdict] = {}
    for variant, path in paths.items():
        correct = _answers(path, samples) == samples.labels
        baseline = verdicts[BASELINE].correct if verdicts else correct
        verdicts[variant] = Verdict(
            correct,
            tuple(float(_mean(correct[samples.labels == label])) for label in range(classes)),
            100 * float(baseline.mean() - correct.mean()),
            _drop_interval(baseline, correct, samples.market),
            batch_dependence(path, samples, _SEED, _MIXED_BATCHES),
        )
    return Report(
        samples=len(samples),
        markets=np.unique(samples.market).size,
        classes=classes,
        majority=float(np.bincount(samples.labels).max() / len(samples)),
        verdicts=verdicts,
    )


def _answers(path: Path, samples: Samples) -> np.ndarray:
    runner = session(path)
    return np.concatenate([probabilities_of(run(runner, batch)).argmax(axis=1) for batch in samples.batches(_BATCH)])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def batch_dependence(path: Path, samples: Samples, seed: int, batches: int) -> float:
    """The largest difference between an answer computed alone and the same input's answer in a random batch.

    A quarter of the batch mates are outliers: inputs magnified up to a millionfold, all zero, or noise.
    """
    random = np.random.default_rng([seed, _LARGEST_MIXED_BATCH])
    ordinary = samples.inputs(random.choice(len(samples), min(192, len(samples)), replace=False))
    factors = 10 ** random.uniform(1, 6, (48, *[1] * (ordinary.ndim - 1)))
    magnified = samples.inputs(random.choice(len(samples), 48)) * factors
    noise = random.normal(scale=5.0, size=(15, *ordinary.shape[1:]))
    pool = np.concatenate([ordinary, magnified, noise, np.zeros((1, *ordinary.shape[1:]))]).astype(np.float32)
    runner = session(path)
    alone = run_alone(runner, pool)
    largest = 0.0
    for _ in range(batches):
        which = random.choice(len(pool), random.integers(1, _LARGEST_MIXED_BATCH + 1))
        together = run(runner, pool[which])
        largest = max(largest, *(float(np.abs(together[name] - alone[name][which]).max()) for name in alone))
    return largest


def _drop_interval(baseline: np.ndarray, variant: np.ndarray, market: np.ndarray) -> tuple[float, float]:
    # Samples of one market share its weather, so markets are drawn, not samples.
    random = np.random.default_rng([_SEED, _BOOTSTRAP_DRAWS])
    difference = np.bincount(market, baseline.astype(float) - variant)
    size = np.bincount(market)
    drawn = random.integers(size.size, size=(_BOOTSTRAP_DRAWS, size.size))
    drops = 100 * difference[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    low, high = np.quantile(drops, [0.025, 0.975])
    return float(low), float(high)
