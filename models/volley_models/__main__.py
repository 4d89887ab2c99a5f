"""`python -m volley_models build` makes everything; the other commands are its steps, alone."""

import argparse
import json
from pathlib import Path

from . import graph

_WEIGHTS = Path(__file__).resolve().parent.parent / "build" / "network.safetensors"


def main() -> None:
    arguments = _arguments()
    version = arguments.repository / graph.VERSION
    fp32, int8 = (version / graph.VARIANTS[variant] for variant in ("fp32", "int8"))
    # PyTorch and onnx are imported where they are needed: `accuracy` and `speed` run without them.
    match arguments.command:
        case "build":
            _train(arguments)
            _export(fp32)
            _quantise(fp32, int8)
            _golden(version)
            _card(version)
        case "train":
            _train(arguments)
        case "export":
            _export(fp32)
        case "quantise":
            _quantise(fp32, int8)
        case "golden":
            _golden(version)
        case "card":
            _card(version)
        case "accuracy":
            _accuracy(version)
        case "speed":
            _speed(version)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m volley_models", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in {
        "build": "train, export, quantise, golden, card: everything, in that order",
        "train": "train the network on simulated markets (minutes)",
        "export": "write the trained network as fp32 ONNX",
        "quantise": "write the INT8 variant of the fp32 ONNX",
        "golden": "write golden inputs and each variant's answers to them",
        "card": "judge the variants and write the model card",
        "accuracy": "judge the variants on held-out markets; last line: one JSON object",
        "speed": "windows per second of each variant by batch size, in ONNX Runtime alone",
    }.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        command.add_argument(
            "--repository", type=Path, default=graph.REPOSITORY, help="model repository (default: %(default)s)"
        )
        if name in ("build", "train"):
            command.add_argument("--seed", type=int, default=1, help="of markets and weights (default: %(default)s)")
            command.add_argument("--epochs", type=int, default=6, help="passes over the data (default: %(default)s)")
            command.add_argument("--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)")
    return parser.parse_args()


def _train(arguments: argparse.Namespace) -> None:
    from .train import train

    print("train", flush=True)
    train(arguments.seed, arguments.epochs, arguments.threads, _WEIGHTS)


def _export(fp32: Path) -> None:
    from .export import export
    from .train import load

    print(f"export: {fp32}", flush=True)
    export(*load(_WEIGHTS), fp32)


def _quantise(fp32: Path, int8: Path) -> None:
    from .quantise import quantise

    print(f"quantise: {int8}", flush=True)
    quantise(fp32, int8)


def _golden(version: Path) -> None:
    from .golden import write_golden

    print("golden inputs and answers", flush=True)
    write_golden(version)


def _card(version: Path) -> None:
    from .accuracy import judge
    from .card import write_card

    print("judge and write the card", flush=True)
    report = judge(version)
    write_card(version, report)
    print(report.table())


def _accuracy(version: Path) -> None:
    from .accuracy import judge

    report = judge(version)
    print(report.table())
    print(json.dumps(report.figures()))


def _speed(version: Path) -> None:
    from .speed import measure, table

    print(table(measure(version)))


if __name__ == "__main__":
    main()
