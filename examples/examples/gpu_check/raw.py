"""Plain ONNX Runtime from Python: what the same file does on the same machine without any of Volley.

    python raw.py MODEL.onnx cuda|cpu SECONDS OPERATORS.so BATCH...

Prints, as its last line, one JSON object: `version` (of ONNX Runtime) and `sizes`, by batch size `run` (arrays in, arrays out), `bound` (buffers
that stay on the device, copied to and from for each run) and, with CUDA, `graphs` (the same with a captured CUDA graph),
each in samples a second. What cannot be is there as `refused` or `graphs_refused`, with the reason.

A captured graph reads and writes where it did when it was captured, so the bound buffers are what it takes. After the
capture it must give the answers of plain runs to inputs it has not seen.
"""

import json
import sys
import time

import numpy
import onnxruntime

_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
# Of a replayed graph's answers from a plain run's: the same kernels ran.
_TOLERANCE = 1e-4


def main(model, device, seconds, operators, *batches):
    found = {"version": onnxruntime.__version__, "sizes": {}}
    if _PROVIDERS[device] not in onnxruntime.get_available_providers():
        found["refused"] = f"onnxruntime {onnxruntime.__version__} of this Python was built without {device}"
        return found
    if device == "cuda":
        onnxruntime.preload_dlls()
    plain = _session(model, device, operators)
    for batch in map(int, batches):
        inputs = [_inputs(plain, batch, seed) for seed in (1, 2)]
        rates = {
            "run": _rate(lambda: plain.run(None, inputs[0]), batch, float(seconds)),
            "bound": _rate(_Bound(plain, device, inputs[0]).run, batch, float(seconds)),
        }
        if device == "cuda":
            try:
                captured = _Bound(_session(model, device, operators, enable_cuda_graph="1"), device, inputs[0])
                captured.warm_up()
                got, right = captured.run(inputs[1]), plain.run(None, inputs[1])
                off = max(float(numpy.abs(one - other).max()) for one, other in zip(got, right, strict=True))
                if not off <= _TOLERANCE:
                    raise ValueError(f"the replayed graph's answers are off by {off:.1e}")
                rates["graphs"] = _rate(captured.run, batch, float(seconds))
            # ONNX Runtime's own exceptions have no public base class.
            except Exception as error:
                rates["graphs_refused"] = str(error).strip()
        found["sizes"][str(batch)] = rates
    return found


def _session(model, device, operators, **options):
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    settings.register_custom_ops_library(operators)
    provider = _PROVIDERS[device]
    # Without the fallback: else a session that cannot capture a graph is opened again, without the option.
    session = onnxruntime.InferenceSession(model, settings, providers=[(provider, options)], enable_fallback=0)
    # A provider whose libraries are missing is still passed over without an error.
    if session.get_providers()[0] != provider:
        raise SystemExit(f"{provider} does not start from Python")
    return session


def _inputs(session, batch, seed):
    draw = numpy.random.default_rng(seed)
    return {
        spec.name: draw.standard_normal([batch, *spec.shape[1:]]).astype(numpy.float32) for spec in session.get_inputs()
    }


class _Bound:
    """A session whose inputs and outputs stay where they are on the device."""

    def __init__(self, session, device, inputs):
        self._session = session
        self._arrays = inputs
        self._binding = session.io_binding()
        self._inputs = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0) for name, array in inputs.items()
        }
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        batch = len(next(iter(inputs.values())))
        self._outputs = []
        for spec in session.get_outputs():
            shape = [batch, *spec.shape[1:]]
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, numpy.float32, device, 0)
            self._binding.bind_ortvalue_output(spec.name, value)
            self._outputs.append(value)

    def warm_up(self):
        """Runs until nothing is prepared or captured any more."""
        for _ in range(4):
            self.run()

    def run(self, inputs=None):
        for name, array in (inputs or self._arrays).items():
            self._inputs[name].update_inplace(array)
        self._session.run_with_iobinding(self._binding)
        return [value.numpy() for value in self._outputs]


def _rate(run, batch, seconds):
    for _ in range(3):
        run()
    started, samples = time.perf_counter(), 0
    while samples == 0 or time.perf_counter() - started < seconds:
        run()
        samples += batch
    return samples / (time.perf_counter() - started)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
