"""The exported graphs as everyone else sees them: where they lie, what they are called, how to run one.

Needs neither PyTorch nor the onnx package. Sessions know the operators of Volley's runtime, from the library that
`cargo build --release -p volley-gpu-runtime --example operators` makes: what is judged here is the code that serves.
"""

import os
import tomllib
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

BASELINE = "fp32"
"""The variant that `model.onnx` holds, and what others are compared with."""
MEMBERS = ("int8", "int8-b", "int8-c")
"""The variants that the bundled model's ensemble is made of, in the order of their weights' seeds."""


def file_of(variant: str) -> str:
    """The name of a variant's file in a version's folder."""
    return "model.onnx" if variant == BASELINE else f"model.{variant}.onnx"


def variants_in(version: Path) -> dict[str, Path]:
    """The file of each variant that a version's folder holds: fp32 first, the others by name.

    Raises `FileNotFoundError` when there is no fp32 to compare the others with.
    """
    baseline = version / file_of(BASELINE)
    if not baseline.is_file():
        raise FileNotFoundError(f"{baseline} is not there; a version's folder needs it to compare its variants with")
    others = {path.name.removeprefix("model.").removesuffix(".onnx"): path for path in version.glob("model.*.onnx")}
    return {BASELINE: baseline, **dict(sorted(others.items()))}


def members_in(version: Path) -> dict[str, Path]:
    """The file of each member of a model's ensemble, which `config.toml` beside its versions names.

    Raises `ValueError` when fewer than two are named: one alone has nobody to differ from.
    """
    config = version.parent / "config.toml"
    members = tomllib.loads(config.read_text()).get("ensemble", {}).get("members", [])
    if len(members) < 2:
        raise ValueError(f"{config}: ensemble.members: {members}; expected the names of two variants or more")
    return {member: version / file_of(member) for member in members}


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


def input_of(session: onnxruntime.InferenceSession) -> str:
    """The name of a graph's only input.

    Raises `ValueError` when it has several.
    """
    names = [tensor.name for tensor in session.get_inputs()]
    if len(names) != 1:
        raise ValueError(f"the graph has the inputs {', '.join(names)}; expected a single one")
    return names[0]


def probabilities_of(answers: dict[str, np.ndarray]) -> np.ndarray:
    """The answer that classes are told by, [N, classes]: `prediction`, or the last output where there is none."""
    return answers.get(OUTPUTS[1], [*answers.values()][-1])


def run(session: onnxruntime.InferenceSession, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Every output by name, for inputs [N, ...] computed as one batch."""
    names = [tensor.name for tensor in session.get_outputs()]
    return dict(zip(names, session.run(names, {input_of(session): inputs}), strict=True))


def run_alone(session: onnxruntime.InferenceSession, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Every output by name, each of the inputs [N, ...] computed in a batch of its own."""
    answers = [run(session, inputs[i : i + 1]) for i in range(len(inputs))]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def property_of(path: Path, name: str) -> str:
    """A named property from the graph's own metadata."""
    return session(path).get_modelmeta().custom_metadata_map[name]


def seed_of(path: Path) -> int:
    """The seed that made the model and its data."""
    return int(property_of(path, "seed"))
