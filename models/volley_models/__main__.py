"""`python -m volley_models build` makes everything; the other commands are its steps, alone, and tools for variants."""

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from . import graph

_BUILD = Path(__file__).resolve().parent.parent / "build"
_ENSEMBLE = """\
# What `use_ensemble` and `return_uncertainty` answer with: mean and standard deviation over these variants.
[ensemble]
members = [{members}]
"""


def main() -> None:
    arguments = _arguments()
    # PyTorch and onnx are imported where they are needed: judging runs without them.
    arguments.run(arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m volley_models", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], None], purpose: str) -> argparse.ArgumentParser:
        made = commands.add_parser(run.__name__.removeprefix("_"), help=purpose, description=purpose)
        made.set_defaults(run=run)
        return made

    bundled = graph.REPOSITORY / graph.VERSION
    for run, purpose in {
        _build: "train, export, int8, golden, card: everything, in that order",
        _train: "train the ensemble's members on simulated markets (minutes each)",
        _export: "write the trained networks as fp32 ONNX",
        _int8: "write the INT8 variant of each member",
        _golden: "write golden inputs and each variant's answers to them",
        _card: "judge the variants and the ensemble, and write the model card",
    }.items():
        step = command(run, purpose)
        step.add_argument(
            "--repository", type=Path, default=graph.REPOSITORY, help="model repository (default: %(default)s)"
        )
        if run in (_build, _train, _export, _int8):
            step.add_argument(
                "--members",
                type=int,
                nargs="+",
                choices=range(len(graph.MEMBERS)),
                default=range(len(graph.MEMBERS)),
                help="of the ensemble, which to make: 0, 1, 2 (default: all)",
            )
        if run is _golden:
            step.add_argument("--variants", nargs="+", help="whose answers to write, keeping others' (default: all)")
        if run in (_build, _train):
            step.add_argument("--seed", type=int, default=1, help="of markets and weights (default: %(default)s)")
            step.add_argument("--epochs", type=int, default=6, help="passes over the data (default: %(default)s)")
            step.add_argument("--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)")

    for run, purpose in {
        _accuracy: "judge a version's variants on held-out samples; last line: one JSON object",
        _speed: "samples per second of each variant by batch size, in ONNX Runtime alone",
        _compare: "size, speed, accuracy and batch dependence of each variant; last line: one JSON object",
        _calibration: "whether the ensemble's deviation tells its errors; last line: one JSON object",
    }.items():
        judge = command(run, purpose)
        judge.add_argument(
            "--version", type=Path, default=bundled, help="folder with model.onnx and variants (default: %(default)s)"
        )
        if run is not _speed:
            _takes_samples(judge)

    operators = command(_operators, "what runs, where, on which types and for how long, by ONNX Runtime's profile")
    operators.add_argument("models", type=Path, nargs="*", help="ONNX files of one input (default: every bundled one)")

    for run, purpose in {
        _quantise: "write an INT8 form of a graph, and compare",
        _fp16: "write an fp16 form of a graph, and compare",
        _prune: "write a graph without its smallest weights or least important channels, and compare",
    }.items():
        tool = command(run, purpose)
        tool.add_argument(
            "--model",
            type=Path,
            default=bundled / graph.file_of(graph.BASELINE),
            help="fp32 ONNX file of one input (default: %(default)s)",
        )
        tool.add_argument(
            "--output", type=Path, required=True, help="version folder to write to; the fp32 graph is copied there too"
        )
        _takes_samples(tool)
        if run is _quantise:
            tool.add_argument(
                "--method",
                choices=("static", "dynamic"),
                default="static",
                help="ranges from samples, or found in each batch, on which answers then depend (default: %(default)s)",
            )
        if run is _prune:
            tool.add_argument("--kind", choices=("weights", "channels"), required=True, help="what to take away")
            tool.add_argument("--share", type=_share, default=0.25, help="how much of it (default: %(default)s)")
            tool.add_argument(
                "--epochs", type=int, default=0, help="of training afterwards; the bundled architecture only"
            )
            tool.add_argument("--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)")
    return parser.parse_args()


def _takes_samples(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--samples",
        type=Path,
        help="safetensors file with `input` and perhaps `label` (default: the bundled model's simulated markets)",
    )


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text}; expected a share between 0 and 1")
    return share


def _build(arguments: argparse.Namespace) -> None:
    for step in (_train, _export, _int8, _golden, _card):
        step(arguments)


def _train(arguments: argparse.Namespace) -> None:
    from .train import train

    for member in arguments.members:
        print(f"train: {graph.MEMBERS[member]}", flush=True)
        train(arguments.seed, member, arguments.epochs, arguments.threads, _weights(member))


def _export(arguments: argparse.Namespace) -> None:
    from .export import export
    from .train import load

    for member in arguments.members:
        fp32 = _fp32(arguments, member)
        print(f"export: {fp32}", flush=True)
        export(*load(_weights(member)), fp32)


def _int8(arguments: argparse.Namespace) -> None:
    from .quantise import quantise_static
    from .samples import material

    shared = material(_fp32(arguments, 0), None)
    for member in arguments.members:
        int8 = _version(arguments) / graph.file_of(graph.MEMBERS[member])
        print(f"quantise: {int8}", flush=True)
        quantise_static(_fp32(arguments, member), int8, shared)
    config = _version(arguments).parent / "config.toml"
    if not config.exists():
        config.write_text(_ENSEMBLE.format(members=", ".join(f'"{member}"' for member in graph.MEMBERS)))


def _golden(arguments: argparse.Namespace) -> None:
    from .golden import write_golden

    print("golden inputs and answers", flush=True)
    write_golden(_version(arguments), getattr(arguments, "variants", None))


def _card(arguments: argparse.Namespace) -> None:
    from .accuracy import judge
    from .calibration import calibrate
    from .card import write_card

    print("judge and write the card", flush=True)
    version = _version(arguments)
    report, calibration = judge(version), calibrate(version)
    write_card(version, report, calibration)
    print(f"{report.table()}\n\n{calibration.table()}")


def _accuracy(arguments: argparse.Namespace) -> None:
    from .accuracy import judge

    report = judge(arguments.version, arguments.samples)
    print(report.table())
    print(json.dumps(report.figures()))


def _speed(arguments: argparse.Namespace) -> None:
    from .speed import measure, table

    print(table(measure(arguments.version)))


def _compare(arguments: argparse.Namespace) -> None:
    _print_comparison(arguments.version, arguments.samples)


def _calibration(arguments: argparse.Namespace) -> None:
    from .calibration import calibrate

    calibration = calibrate(arguments.version, arguments.samples)
    print(calibration.table())
    print(json.dumps(calibration.figures()))


def _operators(arguments: argparse.Namespace) -> None:
    from .operators import profile, table

    bundled = graph.REPOSITORY / graph.VERSION
    for path in arguments.models or graph.variants_in(bundled).values():
        print(f"{path}\n\n{table(profile(path))}\n", flush=True)


def _quantise(arguments: argparse.Namespace) -> None:
    from .quantise import quantise_dynamic, quantise_static
    from .samples import material

    fp32 = _copied(arguments)
    if arguments.method == "dynamic":
        print("dynamic ranges are of a whole batch: see how far answers move with batch mates before serving this")
        quantise_dynamic(fp32, arguments.output / graph.file_of("int8-dynamic"))
    else:
        quantise_static(fp32, arguments.output / graph.file_of("int8"), material(fp32, arguments.samples))
    _print_comparison(arguments.output, arguments.samples)


def _fp16(arguments: argparse.Namespace) -> None:
    from .half import halve

    halve(_copied(arguments), arguments.output / graph.file_of("fp16"))
    print("measured on the CPU, which casts halves to fp32 and gains nothing by them: the speed says nothing of a GPU")
    _print_comparison(arguments.output, arguments.samples)


def _prune(arguments: argparse.Namespace) -> None:
    from .prune import remove_channels, table, zero_weights

    fp32 = _copied(arguments)
    percent = f"{100 * arguments.share:.0f}"
    pruned = arguments.output / graph.file_of(f"less-{percent}-{arguments.kind}")
    prune = zero_weights if arguments.kind == "weights" else remove_channels
    print(table(prune(fp32, pruned, arguments.share)), flush=True)
    if arguments.epochs:
        from .finetune import finetune

        tuned = arguments.output / graph.file_of(f"less-{percent}-{arguments.kind}-tuned")
        shutil.copyfile(pruned, tuned)
        finetune(tuned, arguments.epochs, arguments.threads)
    _print_comparison(arguments.output, arguments.samples)


def _copied(arguments: argparse.Namespace) -> Path:
    """The tool's model, copied to its output folder as what to compare with.

    Raises `ValueError` when that folder is one of those that ship.
    """
    output = arguments.output.resolve()
    if output.is_relative_to(graph.REPOSITORY):
        raise ValueError(f"--output {output}: is in the repository that ships; expected a folder elsewhere")
    output.mkdir(parents=True, exist_ok=True)
    fp32 = output / graph.file_of(graph.BASELINE)
    if arguments.model.resolve() != fp32:
        shutil.copyfile(arguments.model, fp32)
    return fp32


def _print_comparison(version: Path, samples: Path | None) -> None:
    from .compare import compare

    comparison = compare(version, samples)
    print(comparison.table())
    print(json.dumps(comparison.figures()))


def _version(arguments: argparse.Namespace) -> Path:
    return arguments.repository / graph.VERSION


def _weights(member: int) -> Path:
    return _BUILD / f"member-{member}.safetensors"


def _fp32(arguments: argparse.Namespace, member: int) -> Path:
    """Of the first member the variant that ships; of the others a step on the way to INT8."""
    return _version(arguments) / graph.file_of(graph.BASELINE) if member == 0 else _BUILD / f"member-{member}.onnx"


if __name__ == "__main__":
    main()
