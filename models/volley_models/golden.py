"""Golden inputs and the answers they must get: what a runtime compares itself with before it takes traffic."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from .graph import BASELINE, OUTPUTS, run_alone, seed_of, session, variants_in
from .windows import HELD_OUT

FILE = "golden.safetensors"
ORDINARY, EXTREME = 12, 4


def write_golden(version: Path, variants: list[str] | None = None) -> None:
    """Writes `input` and, for each variant, `<variant>.features` and `<variant>.prediction`.

    With `variants`, the file keeps its inputs and the others' answers, and only those of `variants` are written anew:
    another machine's simulated windows and fp32 answers differ in the last digits. Each answer is computed alone, in a
    batch of one.
    """
    paths = variants_in(version)
    tensors = {"input": _inputs(seed_of(paths[BASELINE]))} if variants is None else load_file(version / FILE)
    for variant in variants or paths:
        answers = run_alone(session(paths[variant]), tensors["input"])
        tensors.update({f"{variant}.{output}": answers[output] for output in OUTPUTS})
    save_file(tensors, version / FILE)


def _inputs(seed: int) -> np.ndarray:
    """Held-out windows: some at random, and those with the largest values measured in each channel's deviation, where
    a clipped or quantised graph is likeliest to go wrong."""
    windows = HELD_OUT.make(seed)
    random = np.random.default_rng([seed, ORDINARY])
    ordinary = np.sort(random.choice(len(windows), ORDINARY, replace=False))
    mean = windows.features.mean(axis=(0, 2), keepdims=True)[0]
    deviation = windows.features.std(axis=(0, 2), keepdims=True)[0]
    size = np.concatenate([(np.abs(batch - mean) / deviation).max(axis=(1, 2)) for batch in windows.batches(512)])
    extreme = np.argsort(-size, kind="stable")[:EXTREME]
    return windows.inputs(np.concatenate([ordinary, extreme]))
