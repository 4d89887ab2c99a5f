"""Runs the tests of every public client, each with the Python that has it. The last line says how many passed.

    run.py PYTHON=FOLDER/PATTERN ...
"""

import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def run(python, folder, pattern):
    """Runs the tests in files of this pattern; says how many passed and how many did not."""
    tests = subprocess.run(
        [python, "-m", "unittest", "discover", "--verbose", "--start-directory", HERE / folder, "--pattern", pattern],
        env=os.environ | {"PYTHONPATH": str(HERE)}, stderr=subprocess.PIPE, text=True,
    )
    print(tests.stderr, flush=True)
    count = int((re.search(r"^Ran (\d+) test", tests.stderr, re.MULTILINE) or [0, 0])[1])
    wrong = sum(int(number) for number in re.findall(r"(?:failures|errors)=(\d+)", tests.stderr))
    # What could not even be loaded, or ended early, counts once.
    return (max(count - wrong, 0), wrong) if wrong or tests.returncode == 0 and count else (0, max(wrong, 1))


def main(suites):
    passed = failed = 0
    for suite in suites:
        python, _, files = suite.partition("=")
        folder, _, pattern = files.rpartition("/")
        good, bad = run(python, folder, pattern)
        passed, failed = passed + good, failed + bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
