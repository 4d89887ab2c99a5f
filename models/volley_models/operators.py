"""What really runs, operator by operator, by ONNX Runtime's own profile after all its optimisations.

A file may say INT8 and yet run in fp32, where no kernel matched. The profile tells which kernels ran, where, on which
types, and for how long.
"""

import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .graph import run, session
from .speed import sample_shape

BATCH = 16
_RUNS = 50
_WARM_UP = 5
_EIGHT_BITS = {"int8", "uint8"}
_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True)
class Step:
    """One node of the optimised graph."""

    name: str
    operator: str
    provider: str
    types: tuple[str, ...]
    """Of the tensors it reads, scalars left out, in order and once each."""
    microseconds: float
    """A sample: the median over runs."""

    @property
    def in_eight_bits(self) -> bool:
        """Whether it works on integers, rather than turns numbers from or into them."""
        return bool(_EIGHT_BITS & set(self.types)) and self.operator not in _CONVERSIONS


def profile(path: Path, batch: int = BATCH) -> list[Step]:
    """The steps of a graph in the order they run, on noise, in batches of `batch`, on one thread of the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        profiled = session(path, profile_prefix=Path(folder) / "profile")
        inputs = np.random.default_rng(0).normal(size=(batch, *sample_shape(profiled))).astype(np.float32)
        for _ in range(_WARM_UP + _RUNS):
            run(profiled, inputs)
        events = json.loads(Path(profiled.end_profiling()).read_text())
    kernels = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            kernels[event["name"].removesuffix("_kernel_time")].append(event)
    return [
        Step(
            name,
            runs[0]["args"]["op_name"],
            runs[0]["args"]["provider"].removesuffix("ExecutionProvider"),
            _types(runs[0]["args"]["input_type_shape"]),
            float(np.median([event["dur"] for event in runs[_WARM_UP:]])) / batch,
        )
        for name, runs in kernels.items()
    ]


def _types(inputs: list[dict[str, list[int]]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(kind for tensor in inputs for kind, shape in tensor.items() if shape))


def table(steps: list[Step]) -> str:
    """The steps for a person, as a Markdown table, and how much of the time goes by in eight bits."""
    total = sum(step.microseconds for step in steps)
    rows = ["| node | operator | provider | reads | eight bits | us a sample | share |", "|---|" + "---|" * 6]
    rows += [
        f"| {step.name} | {step.operator} | {step.provider} | {', '.join(step.types)} |"
        f" {'yes' if step.in_eight_bits else ''} | {step.microseconds:.2f} | {step.microseconds / total:.0%} |"
        for step in steps
    ]
    return "\n".join(rows) + f"\n\n{share_in_eight_bits(steps):.0%} of {total:.1f} us a sample in eight bits."


def share_in_eight_bits(steps: list[Step]) -> float:
    """Of the time, that which goes by in operators that work on integers."""
    total = sum(step.microseconds for step in steps)
    return sum(step.microseconds for step in steps if step.in_eight_bits) / total
