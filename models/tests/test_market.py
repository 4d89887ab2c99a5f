import unittest

import numpy as np

from volley_models.market import ASK, BID, simulate

_ARRAYS = ("volume", "best", "traded", "added", "cancelled")


class Market(unittest.TestCase):
    def test_the_same_seed_gives_the_same_tape(self) -> None:
        first, second = simulate(5, markets=6, steps=80), simulate(5, markets=6, steps=80)
        for name in _ARRAYS:
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name), name)

    def test_another_seed_gives_another_tape(self) -> None:
        first, second = simulate(5, markets=6, steps=80), simulate(6, markets=6, steps=80)
        for name in _ARRAYS:
            self.assertFalse(np.array_equal(getattr(first, name), getattr(second, name)), name)

    def test_a_book_is_never_crossed_and_always_has_lots_at_its_best_prices(self) -> None:
        tape = simulate(7, markets=64, steps=400)
        self.assertGreater((tape.best[:, ASK] - tape.best[:, BID]).min(), 0)
        self.assertGreater(tape.volume[:, :, :, 0].min(), 0)
        self.assertGreaterEqual(tape.volume.min(), 0)

    def test_no_lots_come_from_nowhere_or_vanish(self) -> None:
        tape = simulate(8, markets=64, steps=400)
        gone = (tape.traded + tape.cancelled)[1:]
        # Where the best price stands and cannot have been emptied in between, the same ten prices are on the tape
        # before and after; what the prices behind them gained and lost is the slack in both bounds.
        same = (tape.best[1:] == tape.best[:-1]) & (tape.volume[:-1, :, :, 0] > gone)
        near = tape.volume.sum(axis=3, dtype=np.int64)
        gained = (near[1:] - near[:-1])[same]
        self.assertGreater(gained.size, 10_000)
        self.assertTrue((gained <= tape.added[1:][same]).all())
        self.assertTrue((gained >= -gone[same]).all())

    def test_order_sizes_are_heavy_tailed(self) -> None:
        traded = simulate(9, markets=128, steps=500).traded
        traded = traded[traded > 0]
        self.assertGreater(np.quantile(traded, 0.999), 6 * np.median(traded))

    def test_neither_side_is_favoured_in_stepping_into_the_spread(self) -> None:
        best = simulate(10, markets=256, steps=300).best
        bids = (best[1:, BID] > best[:-1, BID]).sum(axis=0)
        asks = (best[1:, ASK] < best[:-1, ASK]).sum(axis=0)
        difference = bids - asks
        self.assertLess(abs(difference.mean()), 3 * difference.std() / np.sqrt(difference.size))


if __name__ == "__main__":
    unittest.main()
