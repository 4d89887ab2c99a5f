"""The bundled model through ONNX Runtime, as every peer runs it: one thread, no spinning.

As a program it answers the windows that come in on standard input, each alone: what all servers must say.
"""

import os
import sys

import numpy
import onnxruntime

WINDOW = (50, 60)


class WindowModel:
    """Takes windows as raw binary32, gives `features` and `prediction` of each as raw binary32, one after the other."""

    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.register_custom_ops_library(os.environ["PEER_OPERATORS"])
        self.session = onnxruntime.InferenceSession(os.environ["PEER_MODEL"], options, ["CPUExecutionProvider"])
        for rows in (1, 32):
            self.run(numpy.zeros((rows, *WINDOW), numpy.float32))

    def run(self, windows):
        return self.session.run(["features", "prediction"], {"input": windows})

    def answer(self, bodies):
        windows = numpy.frombuffer(b"".join(bodies), numpy.float32).reshape(len(bodies), *WINDOW)
        features, prediction = self.run(windows)
        joined = numpy.concatenate([features, prediction], axis=1)
        return [row.tobytes() for row in joined]


if __name__ == "__main__":
    model = WindowModel()
    size = 4 * WINDOW[0] * WINDOW[1]
    while window := sys.stdin.buffer.read(size):
        sys.stdout.buffer.write(model.answer([window])[0])
