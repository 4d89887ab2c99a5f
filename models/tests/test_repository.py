import collections
import hashlib
import json
import re
import tempfile
import unittest
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from volley_models.accuracy import batch_dependence
from volley_models.graph import INPUT, OUTPUTS, REPOSITORY, VERSION, run, run_alone, seed_of, session, variants_in
from volley_models.market import simulate
from volley_models.windows import cut

_VERSION = REPOSITORY / VERSION
_VARIANTS = variants_in(_VERSION)


def _operators_run(path: Path, inputs: np.ndarray) -> collections.Counter:
    """How often each operator runs for one batch, by ONNX Runtime's own profile, after all its optimisations."""
    with tempfile.TemporaryDirectory() as folder:
        profiled = session(path, profile_prefix=Path(folder) / "profile")
        run(profiled, inputs)
        events = json.loads(Path(profiled.end_profiling()).read_text())
    return collections.Counter(event["args"]["op_name"] for event in events if event["cat"] == "Node")


class Repository(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.golden = load_file(_VERSION / "golden.safetensors")
        cls.sessions = {variant: session(path) for variant, path in _VARIANTS.items()}

    def test_each_variant_has_the_promised_tensors(self) -> None:
        for variant, runner in self.sessions.items():
            with self.subTest(variant):
                tensors = [*runner.get_inputs(), *runner.get_outputs()]
                self.assertEqual([tensor.name for tensor in tensors], [INPUT, *OUTPUTS])
                self.assertEqual([tensor.type for tensor in tensors], ["tensor(float)"] * 3)
                self.assertEqual(
                    [tensor.shape for tensor in tensors], [["batch", 50, 60], ["batch", 128], ["batch", 3]]
                )

    def test_each_variant_reproduces_its_golden_answers_alone_and_in_company(self) -> None:
        inputs = self.golden["input"]
        self.assertEqual(inputs.shape[1:], (50, 60))
        for variant, runner in self.sessions.items():
            for answers in (run_alone(runner, inputs), run(runner, inputs)):
                for output in OUTPUTS:
                    with self.subTest(variant=variant, output=output):
                        golden = self.golden[f"{variant}.{output}"]
                        np.testing.assert_allclose(answers[output], golden, rtol=0, atol=1e-5)

    def test_golden_answers_tell_inputs_and_variants_apart(self) -> None:
        for variant in _VARIANTS:
            features = self.golden[f"{variant}.features"]
            self.assertEqual(np.unique(features.round(3), axis=0).shape, features.shape)
        self.assertGreater(np.abs(self.golden["fp32.features"] - self.golden["int8.features"]).max(), 1e-4)

    def test_predictions_are_probabilities(self) -> None:
        for runner in self.sessions.values():
            prediction = run(runner, self.golden["input"])["prediction"]
            self.assertGreaterEqual(prediction.min(), 0)
            np.testing.assert_allclose(prediction.sum(axis=1), 1, atol=1e-6)

    def test_an_answer_does_not_depend_on_batch_mates(self) -> None:
        windows = cut(simulate(2, markets=16, steps=200), stride=8)
        for variant, path in _VARIANTS.items():
            with self.subTest(variant):
                self.assertLess(batch_dependence(path, windows, seed=2, batches=20), 1e-6)

    def test_the_int8_variant_runs_its_convolutions_and_its_lstm_in_integers(self) -> None:
        ran = _operators_run(_VARIANTS["int8"], self.golden["input"])
        self.assertEqual(ran["QLinearConv"], 2)
        self.assertEqual(ran["QLstm"], 1)
        # One transpose brings the input's channels side by side; from there on they stay there.
        self.assertEqual(ran["Transpose"], 1)
        self.assertEqual([name for name in ran if "Conv" in name or "LSTM" in name], ["QLinearConv"])

    def test_the_fp32_variant_is_one_convolution_stack_and_one_lstm(self) -> None:
        ran = _operators_run(_VARIANTS["fp32"], self.golden["input"])
        self.assertEqual(ran["FusedConv"] + ran["Conv"], 2)
        self.assertEqual(ran["LSTM"], 1)
        self.assertFalse({"Shape", "Gather", "Expand", "QLinearConv"} & set(ran))

    def test_all_variants_come_from_the_same_seed(self) -> None:
        self.assertEqual(len({seed_of(path) for path in _VARIANTS.values()}), 1)

    def test_the_card_names_the_bytes_of_every_file(self) -> None:
        card = (_VERSION / "README.md").read_text()
        rows = re.findall(r"^\| `([^`]+)` \| ([\d,]+) \| `([0-9a-f]{64})` \|$", card, re.M)
        files = {path.name for path in _VARIANTS.values()}
        self.assertEqual({name for name, _, _ in rows}, {*files, "golden.safetensors"})
        for name, size, digest in rows:
            content = (_VERSION / name).read_bytes()
            self.assertEqual(int(size.replace(",", "")), len(content), name)
            self.assertEqual(hashlib.sha256(content).hexdigest(), digest, name)

    def test_the_files_are_small_enough_to_commit(self) -> None:
        for file in _VERSION.iterdir():
            self.assertLess(file.stat().st_size, 4 << 20, file.name)
        self.assertLess((_VERSION / "golden.safetensors").stat().st_size, 300_000)


if __name__ == "__main__":
    unittest.main()
