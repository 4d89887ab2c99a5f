import tempfile
import unittest
from pathlib import Path

import numpy as np
import tiny

from volley_models.graph import run, session
from volley_models.samples import held_out, material


class Recordings(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.fp32, self.recording = (Path(folder.name) / name for name in ("fp32.onnx", "recording.safetensors"))
        tiny.write_model(self.fp32)

    def test_no_sample_serves_two_purposes(self) -> None:
        tiny.write_samples(self.recording)
        made = material(self.fp32, self.recording)
        judged = held_out(self.fp32, self.recording)
        parts = [made.calibration, *made.selection.batches(128), *judged.batches(128)]
        self.assertEqual([len(part) for part in parts], [32, 32, 64])
        np.testing.assert_array_equal(np.concatenate(parts), tiny.inputs())

    def test_labels_are_taken_where_they_are_known_and_from_fp32_where_not(self) -> None:
        labels = np.arange(128) % 3
        tiny.write_samples(self.recording, label=labels)
        np.testing.assert_array_equal(held_out(self.fp32, self.recording).labels, labels[64:])
        tiny.write_samples(self.recording)
        answers = run(session(self.fp32), tiny.inputs())["classes"].argmax(axis=1)
        np.testing.assert_array_equal(held_out(self.fp32, self.recording).labels, answers[64:])

    def test_a_recording_that_cannot_be_used_is_refused_with_what_was_expected(self) -> None:
        tiny.write_samples(self.recording, label=np.zeros(5, np.int64))
        with self.assertRaisesRegex(ValueError, r"label: \[5\]; expected \[128\], one an input"):
            held_out(self.fp32, self.recording)

    def test_a_graph_without_markets_of_its_own_needs_a_recording(self) -> None:
        with self.assertRaisesRegex(ValueError, "names no seed of simulated markets; give it samples"):
            held_out(self.fp32, None)


if __name__ == "__main__":
    unittest.main()
