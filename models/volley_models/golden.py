"""Golden inputs and the answers they must get: what a runtime compares itself with before it takes traffic."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from .graph import BASELINE, OUTPUTS, file_of, run_alone, seed_of, session, variants_in
from .windows import HELD_OUT

FILE = "golden.safetensors"
ORDINARY, EXTREME = 12, 4


def write_golden(version: Path) -> None:
    """Writes `input` and, for each variant, `<variant>.features` and `<variant>.prediction`.

    The inputs are held-out windows: some at random, and those with the largest values measured in each channel's
    deviation, where a clipped or quantised graph is likeliest to go wrong. Each answer is computed alone, in a batch
    of one.
    """
    seed = seed_of(version / file_of(BASELINE))
    windows = HELD_OUT.make(seed)
    random = np.random.default_rng([seed, ORDINARY])
    ordinary = np.sort(random.choice(len(windows), ORDINARY, replace=False))
    mean = windows.features.mean(axis=(0, 2), keepdims=True)[0]
    deviation = windows.features.std(axis=(0, 2), keepdims=True)[0]
    size = np.concatenate([(np.abs(batch - mean) / deviation).max(axis=(1, 2)) for batch in windows.batches(512)])
    extreme = np.argsort(-size, kind="stable")[:EXTREME]
    inputs = windows.inputs(np.concatenate([ordinary, extreme]))
    tensors = {"input": inputs}
    for variant, path in variants_in(version).items():
        answers = run_alone(session(path), inputs)
        tensors.update({f"{variant}.{output}": answers[output] for output in OUTPUTS})
    save_file(tensors, version / FILE)
