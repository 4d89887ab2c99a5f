"""The real server program, on free ports, for as long as a test needs it."""

import json
import os
import pathlib
import subprocess
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OPERATORS = TARGET / "release/examples/liboperators.so"
"""Volley's operators as a library for any ONNX Runtime."""
MODEL = ROOT / "models/repository/cnn_lstm/1"


class Server:
    """Starts `volley-server` with settings in its environment; a context manager that ends it."""

    def __init__(self, **settings):
        program = TARGET / os.environ.get("VOLLEY_TEST_PROFILE", "debug") / "volley-server"
        self._process = subprocess.Popen(
            [program, "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--admin-port", "0",
             "--log-format", "json"],
            env=os.environ | settings, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )
        seen = []
        for line in self._process.stderr:
            seen.append(line)
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("message") == "ready":
                self.address, self.grpc_address = entry["http"], entry["grpc"]
                break
        else:
            raise RuntimeError("the server ended before it was ready:\n" + "".join(seen))
        # The pipe is read to its end, so that the server never waits for room in it.
        self._log = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._log.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        code = self._process.wait(timeout=60)
        self._log.join()
        self._process.stderr.close()
        if code != 0:
            raise RuntimeError(f"the server ended with {code}")
