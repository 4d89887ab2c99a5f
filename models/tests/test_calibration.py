import tempfile
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np

from volley_models.calibration import separates, weigh
from volley_models.graph import members_in


def _binary(of_first: list[float]) -> np.ndarray:
    """Probabilities of two classes, [samples, 2]."""
    return np.stack([np.array(of_first), 1 - np.array(of_first)], axis=1)


class Calibration(unittest.TestCase):
    def test_a_score_separates_by_how_often_it_is_higher_where_it_should_be(self) -> None:
        wrong = np.array([False, False, True, True])
        self.assertEqual(separates(np.array([1, 2, 3, 4]), wrong), 1)
        self.assertEqual(separates(np.array([4, 3, 2, 1]), wrong), 0)
        self.assertEqual(separates(np.array([5, 5, 5, 5]), wrong), 0.5)
        self.assertEqual(separates(np.array([1, 3, 2, 4]), wrong), 0.75)

    def test_quality_is_what_was_promised_against_what_came_to_be(self) -> None:
        labels = np.array([0] * 8 + [1] * 2)
        honest, boastful = (_binary([promise] * 10) for promise in (0.8, 0.99))
        judged = weigh(["honest", "boastful"], np.stack([honest, boastful]), labels)
        self.assertAlmostEqual(judged.members["honest"].calibration_error, 0)
        self.assertAlmostEqual(judged.members["boastful"].calibration_error, 0.19)
        self.assertAlmostEqual(judged.members["honest"].log_loss, -(0.8 * np.log(0.8) + 0.2 * np.log(0.2)))
        self.assertEqual(judged.mean.accuracy, 0.8)

    def test_a_deviation_that_knows_its_errors_is_told_from_one_that_does_not(self) -> None:
        random = np.random.default_rng(1)
        apart = np.repeat([0.01, 0.2], 500)
        labels = np.where(random.random(1_000) < np.where(apart > 0.1, 0.4, 0.05), 1, 0)
        knowing = np.stack([_binary(0.75 + apart), _binary(0.75 - apart)])
        judged = weigh(["a", "b"], knowing, labels)
        self.assertGreater(judged.deviation_separates, 0.65)
        self.assertGreater(judged.deciles[0][1], judged.deciles[-1][1])
        self.assertAlmostEqual(judged.deciles[0][0], 0.01)
        self.assertAlmostEqual(judged.deciles[-1][0], 0.2)
        same = np.stack([_binary([0.75] * 1_000)] * 2)
        self.assertEqual(weigh(["a", "b"], same, labels).deviation_separates, 0.5)

    def test_the_plot_has_a_bar_for_each_decile_and_is_well_formed(self) -> None:
        random = np.random.default_rng(2)
        judged = weigh(["a", "b"], random.dirichlet([1, 1, 1], (2, 100)), random.integers(3, size=100))
        bars = [tag for tag in xml.fromstring(judged.plot()).iter() if tag.get("fill") == "#3b6ea5"]
        self.assertEqual(len(bars), 10)
        deviations = [deviation for deviation, _ in judged.deciles]
        self.assertEqual(deviations, sorted(deviations))

    def test_an_ensemble_of_one_is_refused_with_what_was_expected(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.toml").write_text('[ensemble]\nmembers = ["int8"]\n')
            with self.assertRaisesRegex(ValueError, r"ensemble.members: \['int8'\]; expected .* two variants"):
                members_in(Path(folder) / "1")


if __name__ == "__main__":
    unittest.main()
