import unittest
from dataclasses import replace

import numpy as np

from volley_models.market import Tape, simulate
from volley_models.windows import CHANNELS, HELD_OUT, HORIZON, STEPS, channel_names, cut, features, labels


class Windows(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.tape = simulate(3, markets=64, steps=300)
        cls.windows = cut(cls.tape, stride=10)

    def test_each_window_is_fifty_finite_channels_by_sixty_steps(self) -> None:
        inputs = self.windows.inputs(np.arange(len(self.windows)))
        self.assertEqual(inputs.shape, (len(self.windows), CHANNELS, STEPS))
        self.assertEqual((CHANNELS, STEPS), (50, 60))
        self.assertEqual(inputs.dtype, np.float32)
        self.assertTrue(np.isfinite(inputs).all())

    def test_every_channel_has_a_name_of_its_own_and_varies(self) -> None:
        self.assertEqual(len(set(channel_names())), CHANNELS)
        self.assertGreater(self.windows.features.std(axis=(0, 2)).min(), 0)

    def test_a_window_does_not_know_what_comes_after_it(self) -> None:
        end = 150
        other = simulate(4, markets=64, steps=300)
        changed = Tape(
            **{
                name: np.concatenate([getattr(self.tape, name)[:end], getattr(other, name)[end:]])
                for name in ("volume", "best", "traded", "added", "cancelled")
            }
        )
        before, after = features(self.tape), features(changed)
        np.testing.assert_array_equal(before[:, :, :end], after[:, :, :end])
        self.assertFalse(np.array_equal(before[:, :, end:], after[:, :, end:]))

    def test_a_label_says_where_the_mean_mid_price_of_the_next_steps_lies(self) -> None:
        best = np.full((STEPS + HORIZON, 2, 3), 100, np.int32)
        best[:, 1] = 102
        best[STEPS:, :, 0] -= 1
        best[STEPS:, :, 2] += 1
        tape = replace(simulate(1, markets=3, steps=STEPS + HORIZON), best=best)
        self.assertEqual(labels(tape)[:, STEPS - 1].tolist(), [0, 1, 2])
        self.assertEqual(cut(tape, stride=1).labels.tolist(), [0, 1, 2])

    def test_a_label_looks_only_forward(self) -> None:
        changed = self.tape.best.copy()
        changed[:149] += 7
        np.testing.assert_array_equal(labels(self.tape)[:, 149:], labels(replace(self.tape, best=changed))[:, 149:])

    def test_the_classes_are_roughly_balanced(self) -> None:
        share = np.bincount(self.windows.labels) / len(self.windows)
        self.assertEqual(share.size, 3)
        self.assertGreater(share.min(), 0.25)
        self.assertLess(share.max(), 0.42)

    def test_the_held_out_split_is_large_enough_to_judge_by(self) -> None:
        ends = range(STEPS, HELD_OUT.steps - HORIZON + 1, HELD_OUT.stride)
        self.assertGreaterEqual(HELD_OUT.markets * len(ends), 20_000)


if __name__ == "__main__":
    unittest.main()
