"""The bundled model in Triton's Python backend: no wheel carries Triton's own ONNX Runtime backend."""

import os
import sys

# The backend's interpreter looks at no PYTHONPATH.
sys.path += os.environ["PYTHONPATH"].split(os.pathsep)

import numpy  # noqa: E402
import triton_python_backend_utils as backend  # noqa: E402
from window_model import WindowModel  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        self.model = WindowModel()

    def execute(self, requests):
        inputs = [backend.get_input_tensor_by_name(request, "input").as_numpy() for request in requests]
        features, prediction = self.model.run(numpy.concatenate(inputs))
        responses, first = [], 0
        for rows in map(len, inputs):
            outputs = [
                backend.Tensor("features", features[first : first + rows]),
                backend.Tensor("prediction", prediction[first : first + rows]),
            ]
            responses.append(backend.InferenceResponse(outputs))
            first += rows
        return responses
