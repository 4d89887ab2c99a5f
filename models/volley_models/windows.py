"""From a tape to what the model sees: 50 feature channels over 60 steps, and the label it learns.

Features are raw, in lots, ticks and their logarithms. Centring and scaling are part of the model's graph, so that a
caller cannot get them wrong.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .market import ASK, BID, RECORDED_LEVELS, Tape, simulate

CHANNELS = 50
STEPS = 60
CLASSES = ("down", "flat", "up")

HORIZON = 20
"""Steps ahead over which the future mid price is averaged for the label."""
FLAT_WITHIN = 0.475
"""Ticks: a smaller change is "flat". About a third of all windows are, so that the three classes weigh alike."""

FAST, SLOW = 0.2, 0.03
"""Weights of the newest step in the exponentially weighted means: memories of about 5 and 33 steps."""


def channel_names() -> tuple[str, ...]:
    """The feature channels, in the model's order; `channel_meanings` says what each is."""
    return tuple(name for name, _ in channel_meanings())


def channel_meanings() -> tuple[tuple[str, str], ...]:
    """Name and meaning of each feature channel, in the model's order."""
    levels = range(RECORDED_LEVELS)
    return (
        *((f"bid_volume_{i}", f"log(1 + lots) resting on the bid {i} ticks behind the best") for i in levels),
        *((f"ask_volume_{i}", f"log(1 + lots) resting on the ask {i} ticks behind the best") for i in levels),
        *((f"imbalance_{i}", f"(bid - ask) / (bid + ask) of the lots within {i} ticks of the best") for i in levels),
        ("mid_change", "change of the mid price in this step, ticks"),
        ("spread", "best ask less best bid, ticks"),
        ("micro_price", "mid price weighted by the opposite best volumes, less the mid price, ticks"),
        ("mid_over_fast_mean", "mid price less its fast exponential mean, ticks"),
        ("mid_over_slow_mean", "mid price less its slow exponential mean, ticks"),
        ("bought", "log(1 + lots) taken from the ask by market orders"),
        ("sold", "log(1 + lots) taken from the bid by market orders"),
        ("buy_rate", "slow exponential mean of steps with a market buy"),
        ("sell_rate", "slow exponential mean of steps with a market sell"),
        ("bid_added", "log(1 + lots) of new limit orders on the bid"),
        ("ask_added", "log(1 + lots) of new limit orders on the ask"),
        ("bid_cancelled", "log(1 + lots) withdrawn from the bid"),
        ("ask_cancelled", "log(1 + lots) withdrawn from the ask"),
        ("order_flow_imbalance", "best-level order flow imbalance of Cont, Kukanov and Stoikov (2014), signed log"),
        ("order_flow_fast", "its fast exponential mean"),
        ("order_flow_slow", "its slow exponential mean"),
        ("volatility", "root of the slow exponential mean of the squared mid change, ticks"),
        ("trade_flow_fast", "fast exponential mean of the signed log of lots bought less lots sold"),
        ("trade_flow_slow", "its slow exponential mean"),
        ("depth_ratio", "log of the lots on the recorded bid over those on the recorded ask"),
    )


def features(tape: Tape) -> np.ndarray:
    """The feature channels of a whole tape, float32 [markets, 50, steps]. Each step looks only backwards."""
    volume = tape.volume.astype(np.float32)
    bid, ask = volume[:, BID], volume[:, ASK]
    mid = tape.mid()
    mid_change = np.diff(mid, axis=0, prepend=mid[:1])
    cumulative = np.cumsum(volume, axis=3)
    total = cumulative[:, BID] + cumulative[:, ASK]
    imbalance = (cumulative[:, BID] - cumulative[:, ASK]) / np.maximum(total, 1)
    spread = (tape.best[:, ASK] - tape.best[:, BID]).astype(np.float32)
    bought, sold = tape.traded[:, ASK], tape.traded[:, BID]
    order_flow = _signed_log(_order_flow_imbalance(tape))
    trade_flow = _signed_log(bought - sold)

    channels = [np.log1p(bid[:, :, i]) for i in range(RECORDED_LEVELS)]
    channels += [np.log1p(ask[:, :, i]) for i in range(RECORDED_LEVELS)]
    channels += [imbalance[:, :, i] for i in range(RECORDED_LEVELS)]
    channels += [
        mid_change,
        spread,
        imbalance[:, :, 0] * spread / 2,
        mid - _exponential_mean(mid, FAST),
        mid - _exponential_mean(mid, SLOW),
        np.log1p(bought),
        np.log1p(sold),
        _exponential_mean(bought > 0, SLOW),
        _exponential_mean(sold > 0, SLOW),
        np.log1p(tape.added[:, BID]),
        np.log1p(tape.added[:, ASK]),
        np.log1p(tape.cancelled[:, BID]),
        np.log1p(tape.cancelled[:, ASK]),
        order_flow,
        _exponential_mean(order_flow, FAST),
        _exponential_mean(order_flow, SLOW),
        np.sqrt(_exponential_mean(mid_change**2, SLOW)),
        _exponential_mean(trade_flow, FAST),
        _exponential_mean(trade_flow, SLOW),
        np.log1p(cumulative[:, BID, :, -1]) - np.log1p(cumulative[:, ASK, :, -1]),
    ]
    out = np.empty((tape.markets, CHANNELS, tape.steps), np.float32)
    for index, channel in enumerate(channels):
        out[:, index] = channel.T
    return out


def labels(tape: Tape) -> np.ndarray:
    """The class at each step, int64 [markets, steps - HORIZON]: where the mean mid price of the next steps lies.

    Averaging the future tells a move from the bounce between bid and ask.
    """
    mid = tape.mid().astype(np.float64)
    summed = np.cumsum(mid, axis=0)
    future = (summed[HORIZON:] - summed[:-HORIZON]) / HORIZON
    change = future - mid[:-HORIZON]
    return (1 + (change > FLAT_WITHIN).astype(np.int64) - (change < -FLAT_WITHIN).astype(np.int64)).T


@dataclass(frozen=True)
class Windows:
    """Windows cut from many markets. They overlap in memory: a batch is copied out only when it is asked for."""

    features: np.ndarray
    """Float32 [markets, 50, steps]."""
    labels: np.ndarray
    """Int64 [windows], 0 down, 1 flat, 2 up."""
    market: np.ndarray
    """Which market each window is from, int64 [windows]."""
    end: np.ndarray
    """The step after each window's last, int64 [windows]."""

    def __len__(self) -> int:
        return self.labels.size

    def inputs(self, which: np.ndarray) -> np.ndarray:
        """The chosen windows, float32 [len(which), 50, 60]."""
        last = self.end[which]
        steps = last[:, None] + np.arange(-STEPS, 0)
        return np.ascontiguousarray(self.features[self.market[which][:, None], :, steps].transpose(0, 2, 1))

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """All windows in order, at most `size` at a time."""
        for start in range(0, len(self), size):
            yield self.inputs(np.arange(start, min(start + size, len(self))))


def cut(tape: Tape, stride: int) -> Windows:
    """One window of every market each `stride` steps, wherever both the past and the future are on the tape."""
    ends = np.arange(STEPS, tape.steps - HORIZON + 1, stride)
    market = np.repeat(np.arange(tape.markets), ends.size)
    end = np.tile(ends, tape.markets)
    return Windows(features(tape), labels(tape)[market, end - 1], market, end)


@dataclass(frozen=True)
class Split:
    """One of the disjoint sets of markets that a seed gives."""

    index: int
    markets: int
    steps: int
    stride: int

    def make(self, seed: int) -> Windows:
        # A split's markets come from a seed of their own: no market is in two splits, and changing the size of one
        # leaves the others as they were.
        own = int(np.random.SeedSequence([seed, self.index]).generate_state(1, np.uint64)[0])
        return cut(simulate(own, self.markets, self.steps), self.stride)


TRAINING = Split(index=0, markets=768, steps=1_600, stride=8)
VALIDATION = Split(index=1, markets=256, steps=1_200, stride=20)
"""Picks the training's best epoch and the way of quantising; the held-out split has no say in either."""
HELD_OUT = Split(index=2, markets=400, steps=1_300, stride=20)


def _exponential_mean(values: np.ndarray, newest: float) -> np.ndarray:
    """Along the first axis, starting at the first value."""
    mean = np.asarray(values[0], np.float32)
    out = np.empty(values.shape, np.float32)
    for step in range(values.shape[0]):
        mean = mean + np.float32(newest) * (values[step] - mean)
        out[step] = mean
    return out


def _signed_log(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values)).astype(np.float32)


def _order_flow_imbalance(tape: Tape) -> np.ndarray:
    """Cont, Kukanov and Stoikov, "The price impact of order book events" (2014), equation 4; lots, [steps, markets]."""
    best = tape.volume[:, :, :, 0].astype(np.int64)
    flow = np.zeros(best.shape[:1] + best.shape[2:], np.int64)
    bid_up = tape.best[1:, BID] >= tape.best[:-1, BID]
    bid_down = tape.best[1:, BID] <= tape.best[:-1, BID]
    ask_down = tape.best[1:, ASK] <= tape.best[:-1, ASK]
    ask_up = tape.best[1:, ASK] >= tape.best[:-1, ASK]
    flow[1:] = best[1:, BID] * bid_up - best[:-1, BID] * bid_down - best[1:, ASK] * ask_down + best[:-1, ASK] * ask_up
    return flow
