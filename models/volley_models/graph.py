"""The exported graphs as everyone else sees them: where they lie, what they are called, how to run one.

Needs neither PyTorch nor the onnx package. Sessions know the operators of Volley's runtime, from the library that
`cargo build --release -p volley-gpu-runtime --example operators` makes: what is judged here is the code that serves.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime

INPUT = "input"
OUTPUTS = ("features", "prediction")

REPOSITORY = Path(__file__).resolve().parent.parent / "repository"
VERSION = Path("cnn_lstm") / "1"

_ROOT = Path(__file__).resolve().parents[2]
OPERATORS = Path(os.environ.get("CARGO_TARGET_DIR", _ROOT / "target")) / "release/examples/liboperators.so"
"""The library of Volley's operators."""

VARIANTS = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
"""File of each variant, in the version's folder."""


def session(path: Path, profile_prefix: Path | None = None) -> onnxruntime.InferenceSession:
    """A session on the CPU as the server runs it: one thread, and no spinning between runs.

    Raises `FileNotFoundError` when the library of operators has not been built.
    """
    if not OPERATORS.exists():
        build = "cargo build --release -p volley-gpu-runtime --example operators"
        raise FileNotFoundError(f"{OPERATORS} is not there; make it with `{build}`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.register_custom_ops_library(str(OPERATORS))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Warnings about initialisers that an optimisation made unnecessary are no news to anyone here.
    options.log_severity_level = 3
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Both outputs by name, for inputs [N, 50, 60] computed as one batch."""
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {INPUT: inputs}), strict=True))


def run_alone(session: onnxruntime.InferenceSession, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Both outputs by name, each of the inputs [N, 50, 60] computed in a batch of its own."""
    answers = [run(session, inputs[i : i + 1]) for i in range(len(inputs))]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in OUTPUTS}


def property_of(path: Path, name: str) -> str:
    """A named property from the graph's own metadata."""
    return session(path).get_modelmeta().custom_metadata_map[name]


def seed_of(path: Path) -> int:
    """The seed that made the model and its data."""
    return int(property_of(path, "seed"))
