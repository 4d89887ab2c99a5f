"""How much of the codec the fuzzed input reaches: lines run under valgrind, over lines that have code.

    python tests/fuzz/coverage.py [ITERATIONS]

Builds the server's unit tests, runs those that fuzz the codec under callgrind, which writes down each line that runs, and asks objdump
which lines have code. Only valgrind and binutils are needed. Tests beside the code do not count. Last line: one JSON object.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODEC = ROOT / "crates/server/src/codec"


def test_program() -> Path:
    """The server's unit tests, built."""
    build = ["cargo", "test", "--locked", "--package", "volley-server", "--lib", "--no-run", "--message-format", "json"]
    messages = subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    programs = [json.loads(line).get("executable") for line in messages.splitlines()]
    return Path(next(program for program in reversed(programs) if program))


def run_lines(program: Path, iterations: int) -> dict[Path, set[int]]:
    """The lines of the codec that run."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        command = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", str(program)]
        environment = os.environ | {"FUZZ_ITERATIONS": str(iterations)}
        tests = [*command, "breaks_the_codec", "--test-threads", "1"]
        subprocess.run(tests, cwd=ROOT / "crates/server", env=environment, check=True, stdout=sys.stderr)
        return read_profile(out)


def read_profile(path: Path) -> dict[Path, set[int]]:
    """The lines with a cost in a callgrind profile. Names are given once with a number, lines relative to the last one."""
    names: dict[str, str] = {}
    lines: dict[Path, set[int]] = defaultdict(set)
    current: Path | None = None
    position = 0
    with path.open() as profile:
        for text in profile:
            if named := re.match(r"(fl|fi|fe|cfl|cfi)=\((\d+)\)(?: (.*))?", text):
                of, number, name = named.groups()
                names[number] = name or names[number]
                # The others are of what is called.
                if of in ("fl", "fi", "fe"):
                    current = in_codec(names[number])
            elif cost := re.match(r"([+-]\d+|\*|\d+) \d", text):
                where = cost[1]
                if where[0] in "+-":
                    position += int(where)
                elif where != "*":
                    position = int(where)
                if current and position:
                    lines[current].add(position)
    return lines


def lines_with_code(program: Path) -> dict[Path, set[int]]:
    """The lines of the codec that have code in `program`."""
    lines: dict[Path, set[int]] = defaultdict(set)
    command = ["objdump", "--dwarf=decodedline", "--wide", str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as objdump:
        assert objdump.stdout
        current: Path | None = None
        for text in objdump.stdout:
            if header := re.match(r"(?:CU: )?(\S+\.rs):(?:\[\+\+\])?$", text):
                current = in_codec(header[1])
            elif current and (row := re.match(r"\S+\s+(\d+)\s+0x", text)):
                lines[current].add(int(row[1]))
    return lines


def in_codec(name: str) -> Path | None:
    """The file of the codec that is meant, if it is one."""
    path = CODEC / Path(name).name
    return path if name.endswith(f"crates/server/src/codec/{path.name}") else None


def before_tests(path: Path) -> int:
    """The number of lines before the tests beside the code."""
    text = path.read_text().split("#[cfg(test)]\nmod tests")[0]
    return text.count("\n")


def main() -> None:
    iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    program = test_program()
    run, code = run_lines(program, iterations), lines_with_code(program)
    reached = total = 0
    for path in sorted(code):
        last = before_tests(path)
        of = {line for line in code[path] if 0 < line <= last}
        missed = sorted(of - run.get(path, set()))
        reached, total = reached + len(of) - len(missed), total + len(of)
        names = ", ".join(map(str, missed[:30])) + (" ..." if len(missed) > 30 else "")
        print(f"{path.name:<16} {len(of) - len(missed):4} of {len(of):4} lines{'; not ' + names if missed else ''}")
    print(json.dumps({"codec_lines": total, "reached": reached, "coverage": round(reached / total, 3)}))


if __name__ == "__main__":
    main()
