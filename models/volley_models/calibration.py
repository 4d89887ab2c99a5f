"""Whether an ensemble's uncertainty means something: its mean and deviation against what came to be.

Needs neither PyTorch nor the onnx package. As served: an answer is the mean over the members, its uncertainty the
standard deviation (over the members, not of an estimate of the mean).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .graph import BASELINE, file_of, members_in, probabilities_of, run, session
from .samples import Samples, held_out

FILE = "calibration.svg"
_BATCH = 32
_CONFIDENCE_BINS = 15
_DECILES = 10


@dataclass(frozen=True)
class Quality:
    """How good some probabilities are."""

    accuracy: float
    log_loss: float
    """Mean negative log-likelihood of what came to be, nats."""
    calibration_error: float
    """Expected calibration error over 15 bins of equal width, after Guo, Pleiss, Sun and Weinberger (2017)."""


@dataclass(frozen=True)
class Calibration:
    """An ensemble on held-out samples."""

    samples: int
    members: dict[str, Quality]
    mean: Quality
    deviation_separates: float
    """AUROC of the deviation for the mean's being wrong: 0.5 tells nothing, 1 tells all."""
    improbability_separates: float
    """The same of one less the mean's own largest probability, for comparison."""
    deciles: tuple[tuple[float, float], ...]
    """Of samples by rising deviation: the mean deviation, and the mean's accuracy."""

    def table(self) -> str:
        """For a person, in Markdown."""
        rows = ["| who answers | accuracy | log loss | calibration error |", "|---|---|---|---|"]
        for name, quality in {**self.members, "mean of the members": self.mean}.items():
            rows.append(
                f"| {name} | {quality.accuracy:.2%} | {quality.log_loss:.4f} | {quality.calibration_error:.2%} |"
            )
        rows += ["", "| samples by rising deviation | mean deviation | accuracy |", "|---|---|---|"]
        for decile, (deviation, accuracy) in enumerate(self.deciles, start=1):
            rows.append(f"| decile {decile} | {deviation:.4f} | {accuracy:.1%} |")
        return "\n".join(rows) + (
            f"\n\n{self.samples:,} held-out samples; the deviation is that of the probability of the class the mean"
            " names.\nArea under the ROC curve for telling wrong answers from right ones:"
            f" {self.deviation_separates:.3f} by the deviation,\n{self.improbability_separates:.3f} by one less the"
            f" mean's largest probability."
        )

    def figures(self) -> dict[str, float | list[float]]:
        """For a machine."""
        return {
            **{f"{name}_accuracy": round(quality.accuracy, 5) for name, quality in self.members.items()},
            "mean_accuracy": round(self.mean.accuracy, 5),
            "mean_log_loss": round(self.mean.log_loss, 5),
            "mean_calibration_error": round(self.mean.calibration_error, 5),
            "deviation_auroc": round(self.deviation_separates, 4),
            "improbability_auroc": round(self.improbability_separates, 4),
            "accuracy_by_decile": [round(accuracy, 4) for _, accuracy in self.deciles],
        }

    def plot(self) -> str:
        """Accuracy by decile of deviation, as SVG."""
        width, height, left, bottom = 480, 240, 48, 40
        bar = (width - left) / _DECILES
        low, high = 0.3, 0.9
        text = '<text x="{:.0f}" y="{:.0f}" text-anchor="{}">{}</text>'.format

        def y(value: float) -> float:
            return (height - bottom) * (1 - (min(max(value, low), high) - low) / (high - low))

        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
            ' font-size="11">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]
        for value in np.arange(low, high, 0.1):
            parts.append(f'<path d="M{left} {y(value):.1f}H{width}" stroke="#ddd"/>')
            parts.append(text(left - 6, y(value) + 4, "end", f"{value:.0%}"))
        for index, (deviation, accuracy) in enumerate(self.deciles):
            x, top = left + index * bar, y(accuracy)
            parts.append(
                f'<rect x="{x + 4:.1f}" y="{top:.1f}" width="{bar - 8:.1f}" height="{height - bottom - top:.1f}"'
                ' fill="#3b6ea5"/>'
            )
            parts.append(text(x + bar / 2, height - bottom + 14, "middle", f"{deviation:.3f}"))
        legend = "accuracy by mean deviation of each tenth of samples"
        parts.append(text((left + width) / 2, height - 8, "middle", legend))
        return "\n".join([*parts, "</svg>", ""])


def calibrate(version: Path, recording: Path | None = None) -> Calibration:
    """Runs the members that `config.toml` names over the held-out samples."""
    samples = held_out(version / file_of(BASELINE), recording)
    members = members_in(version)
    return weigh(list(members), np.stack([_probabilities(path, samples) for path in members.values()]), samples.labels)


def weigh(names: list[str], probabilities: np.ndarray, labels: np.ndarray) -> Calibration:
    """Judges the members' probabilities [members, samples, classes] by the labels [samples]."""
    mean = probabilities.mean(axis=0)
    chosen = mean.argmax(axis=1)
    correct = chosen == labels
    rows = np.arange(len(labels))
    deviation = probabilities.std(axis=0)[rows, chosen]
    improbability = 1 - mean[rows, chosen]
    deciles = np.array_split(np.argsort(deviation, kind="stable"), _DECILES)
    return Calibration(
        samples=len(labels),
        members={name: _quality(own, labels) for name, own in zip(names, probabilities, strict=True)},
        mean=_quality(mean, labels),
        deviation_separates=separates(deviation, ~correct),
        improbability_separates=separates(improbability, ~correct),
        deciles=tuple((float(deviation[which].mean()), float(correct[which].mean())) for which in deciles),
    )


def separates(score: np.ndarray, positive: np.ndarray) -> float:
    """The area under the ROC curve: how often a positive's score is above a negative's, a tie counting half."""
    count = int(positive.sum())
    above = _ranks(score)[positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(positive) - count)))


def _quality(probabilities: np.ndarray, labels: np.ndarray) -> Quality:
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _CONFIDENCE_BINS).astype(int), _CONFIDENCE_BINS - 1)
    gaps = np.abs(np.bincount(bins, confidence - correct))
    likelihood = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return Quality(
        accuracy=float(correct.mean()),
        log_loss=float(-np.log(np.maximum(likelihood, np.finfo(np.float32).tiny)).mean()),
        calibration_error=float(gaps.sum() / len(labels)),
    )


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 1, equal values sharing the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]


def _probabilities(path: Path, samples: Samples) -> np.ndarray:
    runner = session(path)
    return np.concatenate([probabilities_of(run(runner, batch)) for batch in samples.batches(_BATCH)])
