import shutil
import tempfile
import unittest
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from volley_models.golden import FILE, write_golden
from volley_models.graph import OUTPUTS, REPOSITORY, VERSION


class Golden(unittest.TestCase):
    def test_answers_of_a_new_variant_are_added_and_all_others_stay_the_same_bits(self) -> None:
        bundled = REPOSITORY / VERSION
        with tempfile.TemporaryDirectory() as folder:
            version = Path(folder)
            shutil.copyfile(bundled / "model.onnx", version / "model.onnx")
            shutil.copyfile(bundled / "model.int8.onnx", version / "model.new.onnx")
            before = load_file(bundled / FILE)
            before["fp32.features"] += 1e-6  # As another machine would have it.
            save_file(before, version / FILE)
            write_golden(version, ["new"])
            after = load_file(version / FILE)
        for name, tensor in before.items():
            self.assertEqual(tensor.tobytes(), after.pop(name).tobytes(), name)
        self.assertEqual(set(after), {f"new.{output}" for output in OUTPUTS})
        for output in OUTPUTS:
            np.testing.assert_array_equal(after[f"new.{output}"], before[f"int8.{output}"])


if __name__ == "__main__":
    unittest.main()
