"""What answers are compared with: ONNX Runtime on the file that is served, and windows to ask about."""

import numpy as np
import onnxruntime
from server import MODEL, OPERATORS

FILES = {"fp32": MODEL / "model.onnx", "int8": MODEL / "model.int8.onnx"}
TOLERANCE = 1e-5


def reference(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(str(OPERATORS))
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def windows(rows, seed):
    """Random walks: what order-book channels look like to the model, more than white noise does."""
    steps = np.random.default_rng(seed).standard_normal((rows, 50, 60))
    return steps.cumsum(axis=2).astype(np.float32)
