import contextlib
import io
import json
import tempfile
import unittest
from argparse import Namespace
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import tiny
from onnx import numpy_helper

from volley_models import __main__ as command
from volley_models.accuracy import batch_dependence
from volley_models.graph import REPOSITORY, VERSION, run, run_alone, session, variants_in
from volley_models.half import halve
from volley_models.operators import Step, profile, table
from volley_models.prune import CHANNEL_STEP, remove_channels, zero_weights
from volley_models.quantise import quantise_dynamic, quantise_static
from volley_models.samples import held_out, material


def _run_command(*words: object) -> str:
    printed = io.StringIO()
    with mock.patch("sys.argv", ["volley_models", *map(str, words)]), contextlib.redirect_stdout(printed):
        command.main()
    return printed.getvalue()


def _tensors(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


class Tools(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.fp32, self.made = self.folder / "fp32.onnx", self.folder / "made.onnx"
        self.samples = self.folder / "samples.safetensors"
        tiny.write_model(self.fp32)
        tiny.write_samples(self.samples)

    def _changes(self, inputs: np.ndarray) -> np.ndarray:
        """How far each value of the outputs moved."""
        before, after = (run(session(path), inputs) for path in (self.fp32, self.made))
        return np.concatenate([np.abs(before[name] - after[name]).ravel() for name in before])

    def _operators(self) -> dict[str, bool]:
        return {step.operator: step.in_eight_bits for step in profile(self.made, batch=4)}

    def _quantise_static(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            quantise_static(self.fp32, self.made, material(self.fp32, self.samples))

    def test_static_quantisation_runs_in_integers_and_its_answers_do_not_depend_on_batch_mates(self) -> None:
        self._quantise_static()
        ran = self._operators()
        self.assertTrue(ran["QLinearConv"] and ran["QLstm"])
        self.assertFalse({"Conv", "FusedConv", "LSTM"} & set(ran))
        self.assertLess(self._changes(tiny.inputs()).max(), 0.05)
        self.assertEqual(batch_dependence(self.made, held_out(self.fp32, self.samples), seed=1, batches=20), 0)

    def test_products_with_any_hidden_state_add_up_to_no_more_than_sixteen_bits_hold(self) -> None:
        self._quantise_static()
        weights = np.abs(_tensors(self.made)["lstm.weights"][:, -tiny.WIDTH :].astype(int))
        self.assertEqual(weights.max(), 63)
        sums = weights.reshape(len(weights), -1, 4, 2, 2).sum(axis=(2, 4))
        self.assertLess(127 * sums.max(), 2**15)

    def test_an_lstm_that_the_integer_one_cannot_stand_for_stays_as_it_is(self) -> None:
        tiny.write_model(self.fp32, lstm_output="all")
        self._quantise_static()
        ran = self._operators()
        self.assertIn("LSTM", ran)
        self.assertIn("QLinearConv", ran)
        self.assertLess(self._changes(tiny.inputs()).max(), 0.05)

    def test_dynamic_quantisation_runs_in_integers_and_its_dependence_on_batch_mates_is_measured(self) -> None:
        quantise_dynamic(self.fp32, self.made)
        self.assertTrue(self._operators()["DynamicQuantizeLSTM"])
        self.assertLess(self._changes(tiny.inputs()).mean(), 0.05)
        samples = held_out(self.fp32, self.samples)
        self.assertGreater(batch_dependence(self.made, samples, seed=1, batches=20), 1e-4)

    def test_fp16_keeps_the_interface_halves_the_weights_and_tells_inputs_apart_that_no_half_does(self) -> None:
        halve(self.fp32, self.made)
        runner = session(self.made)
        self.assertEqual({tensor.type for tensor in [*runner.get_inputs(), *runner.get_outputs()]}, {"tensor(float)"})
        tensors = _tensors(self.made)
        kinds = {array.dtype for array in tensors.values() if array.size > 1}
        self.assertEqual(kinds, {np.dtype(np.float16)})
        self.assertLess(self._changes(tiny.inputs()).max(), 0.01)
        self.assertGreater(self._changes(tiny.inputs()).max(), 0)
        # The CPU computes in fp32 all the same. Other devices centre as the graph says.
        self.assertEqual(tensors["offset"].dtype, np.float32)
        nodes = onnx.load(self.made).graph.node
        self.assertEqual([node.op_type for node in nodes if "window" in node.input], ["Sub"])

    def test_pruning_weights_zeroes_the_smallest_and_leaves_the_others_alone(self) -> None:
        zero_weights(self.fp32, self.made, 0.5)
        before, after = map(_tensors, (self.fp32, self.made))
        for name in ("first.weight", "second.weight", "W", "R", "head.weight"):
            kept = after[name] != 0
            self.assertEqual(np.count_nonzero(kept), after[name].size // 2, name)
            np.testing.assert_array_equal(after[name][kept], before[name][kept])
            self.assertGreaterEqual(np.abs(before[name][kept]).min(), np.abs(before[name][~kept]).max(), name)
        for name in ("first.bias", "B", "head.bias"):
            np.testing.assert_array_equal(after[name], before[name])

    def test_channels_that_do_nothing_go_first_and_take_no_answer_with_them(self) -> None:
        dead = (1, 4, 5, 6, 9, 10, 13, 15)
        tiny.write_model(self.fp32, dead=dead)
        first, second = remove_channels(self.fp32, self.made, 0.5)
        self.assertEqual((first.before, first.after, second.after), (16, 8, 8))
        weights = _tensors(self.made)
        self.assertEqual(weights["first.weight"].shape[0], 8)
        self.assertEqual(weights["second.weight"].shape[:2], (8, 8))
        self.assertEqual(weights["W"].shape, (1, 4 * tiny.WIDTH, 8))
        self.assertTrue(np.abs(weights["first.weight"]).max(axis=(1, 2)).all(), "a channel that does something went")
        answers = run_alone(session(self.made), tiny.inputs(2))
        self.assertEqual(answers["features"].shape, (2, tiny.WIDTH))

    def test_channels_left_are_a_multiple_of_what_kernels_work_through(self) -> None:
        for share in (0.1, 0.4, 0.99):
            for layer in remove_channels(self.fp32, self.made, share):
                self.assertEqual(layer.after % CHANNEL_STEP, 0)
                self.assertGreater(layer.after, 0)

    def test_channels_that_callers_read_are_not_pruned(self) -> None:
        model = onnx.load(self.fp32)
        for name in ("first.out", "second.out"):
            shape = ["batch", tiny.WIDTH, tiny.STEPS]
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        onnx.save(model, self.fp32)
        with self.assertRaisesRegex(ValueError, "no convolution whose channels only"):
            remove_channels(self.fp32, self.made, 0.5)

    def test_each_tool_compares_what_it_made_with_what_it_was_made_of(self) -> None:
        output = self.folder / "output"
        for words, variant in {
            ("quantise",): "int8",
            ("quantise", "--method", "dynamic"): "int8-dynamic",
            ("fp16",): "fp16",
            ("prune", "--kind", "weights"): "less-25-weights",
            ("prune", "--kind", "channels", "--share", "0.5"): "less-50-channels",
        }.items():
            with self.subTest(words):
                printed = _run_command(*words, "--model", self.fp32, "--samples", self.samples, "--output", output)
                figures = json.loads(printed.splitlines()[-1])
                self.assertEqual(figures["fp32"]["accuracy"], 1, "without labels fp32 is what is right")
                self.assertEqual(figures["fp32"]["drop_pp"], 0)
                self.assertEqual(figures[variant]["bytes"], (output / f"model.{variant}.onnx").stat().st_size)
                self.assertGreater(figures[variant]["samples_s"], 0)
                self.assertRegex(printed, rf"\| {variant} \|")
        self.assertEqual((output / "model.onnx").read_bytes(), self.fp32.read_bytes())

    def test_no_tool_writes_over_the_files_that_ship(self) -> None:
        for output in (REPOSITORY / VERSION, REPOSITORY / "other" / "1"):
            with self.assertRaisesRegex(ValueError, "in the repository that ships; expected a folder elsewhere"):
                command._copied(Namespace(output=output, model=self.fp32))
            self.assertFalse((REPOSITORY / "other").exists())

    def test_the_operator_report_tells_the_bundled_variants_apart(self) -> None:
        bundled = variants_in(REPOSITORY / VERSION)
        fp32, int8 = (profile(bundled[variant], batch=2) for variant in ("fp32", "int8"))
        self.assertFalse(any(step.in_eight_bits for step in fp32))
        in_eight_bits = {step.operator for step in int8 if step.in_eight_bits}
        self.assertEqual(in_eight_bits, {"QLinearConv", "QLstm", "Transpose"})
        self.assertEqual({step.provider for step in int8}, {"CPU"})
        self.assertEqual([step.types for step in int8 if step.operator == "QuantizeLinear"], [("float",)])
        self.assertFalse(Step("back", "DequantizeLinear", "CPU", ("uint8", "float"), 1).in_eight_bits)
        self.assertRegex(table(int8), r"\| lstm \| QLstm \| CPU \| uint8, int8, float \| yes \|")


if __name__ == "__main__":
    unittest.main()
