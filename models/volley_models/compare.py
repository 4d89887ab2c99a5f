"""The variants of a version side by side: size, speed, accuracy, and whether an answer depends on its batch mates."""

from dataclasses import dataclass
from pathlib import Path

from .accuracy import Report, judge
from .graph import BASELINE, variants_in
from .speed import measure


@dataclass(frozen=True)
class Comparison:
    """All variants of one folder, on one machine."""

    sizes: dict[str, int]
    """Bytes of each file."""
    best: dict[str, tuple[float, int]]
    """Samples per second on one thread, and the batch size at which there are most."""
    report: Report

    def table(self) -> str:
        """For a person, as a Markdown table."""
        rows = [
            "| variant | kB | samples/s | at batch | over fp32 | accuracy | accuracy lost, pp (95 % interval) |"
            " change by batch mates |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for variant, verdict in self.report.verdicts.items():
            rate, batch = self.best[variant]
            lost = "" if variant == BASELINE else verdict.lost()
            rows.append(
                f"| {variant} | {self.sizes[variant] / 1000:,.0f} | {rate:,.0f} | {batch} |"
                f" {rate / self.best[BASELINE][0]:.2f} | {verdict.accuracy:.2%} | {lost} | {verdict.company:.1e} |"
            )
        return "\n".join(rows) + f"\n\n{self.report.conditions()}"

    def figures(self) -> dict[str, dict[str, float]]:
        """For a machine, by variant."""
        return {
            variant: {
                "bytes": self.sizes[variant],
                "samples_s": round(self.best[variant][0]),
                "best_batch": self.best[variant][1],
                "accuracy": round(verdict.accuracy, 5),
                "drop_pp": round(verdict.drop, 3),
                "batch_max_abs_diff": verdict.company,
            }
            for variant, verdict in self.report.verdicts.items()
        }


def compare(version: Path, recording: Path | None = None) -> Comparison:
    """Measures every variant in `version`, on simulated markets unless a recording is given."""
    speeds = measure(version)
    return Comparison(
        sizes={variant: path.stat().st_size for variant, path in variants_in(version).items()},
        best={variant: max((rate, size) for size, rate in rates.items()) for variant, rates in speeds.items()},
        report=judge(version, recording),
    )
