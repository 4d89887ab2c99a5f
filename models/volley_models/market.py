"""A seeded limit-order-book simulator.

Many independent markets advance together, one numpy operation for all of them, so that a million market steps
take seconds. It is a zero-intelligence order flow (limit orders, cancellations and market orders arriving at random,
in the manner of Smith, Farmer, Gillemot and Krishnamurthy, "Statistical theory of the continuous double auction",
2003) with four things real books have and that one lacks, each of which leaves a trace in the book before the price
moves:

* regimes: a hidden Markov chain makes a market quiet, rising, falling or turbulent for a while;
* persistence: a market order makes the next one on its side likelier (large orders are worked in pieces);
* reaction: market orders prefer the thin side of the book, and resting orders withdraw before the flow;
* heavy tails: order sizes follow a Pareto law, so that now and then one order sweeps several prices.

Prices are integers in ticks, volumes integers in lots, time is counted in steps.
"""

from dataclasses import dataclass

import numpy as np

BID, ASK = 0, 1
"""Index of a side in every array that has an axis for it. Buyers rest on the bid; a market buy takes from the ask."""

RECORDED_LEVELS = 10
"""Prices per side that the tape shows, best first. The book itself is deeper, so that a sweep finds something."""

_BOOK_LEVELS = 16
_BURN_IN_STEPS = 300

_TAIL_EXPONENT = 2.2
"""Of the Pareto law of sizes: the mean exists, the variance barely does."""
_LARGEST_ORDER = 400
"""Lots; a limit such as every venue sets, and what keeps one draw from emptying a book for good."""


@dataclass(frozen=True)
class _Regime:
    """How one state of the hidden chain bends the order flow. Rates are probabilities per step."""

    market_order_rate: float
    drift: float
    """Between -1 and 1: moves the flow of market orders from sellers to buyers."""
    limit_order_rate: float
    cancel_rate: float
    """Share of the resting lots withdrawn in a step."""


_REGIMES = (
    _Regime(market_order_rate=0.22, drift=0.0, limit_order_rate=0.30, cancel_rate=0.030),
    _Regime(market_order_rate=0.34, drift=0.40, limit_order_rate=0.27, cancel_rate=0.036),
    _Regime(market_order_rate=0.34, drift=-0.40, limit_order_rate=0.27, cancel_rate=0.036),
    _Regime(market_order_rate=0.50, drift=0.0, limit_order_rate=0.24, cancel_rate=0.055),
)
_REGIME_CHANGE_RATE = 1 / 150


@dataclass(frozen=True)
class Tape:
    """What an observer of the markets saw: one entry a step, the state of the book after it.

    The axes are step, then side (`BID`, `ASK`) where there is one, then market, then level.
    """

    volume: np.ndarray
    """Lots resting at the best price and at the nine ticks behind it, int32 [steps, 2, markets, 10]; 0 is a gap."""
    best: np.ndarray
    """Best price in ticks, int32 [steps, 2, markets]."""
    traded: np.ndarray
    """Lots that market orders took from a side, int32 [steps, 2, markets]: from the ask is a buy."""
    added: np.ndarray
    """Lots of limit orders that came to a side, int32 [steps, 2, markets]."""
    cancelled: np.ndarray
    """Lots withdrawn from a side, int32 [steps, 2, markets]."""

    @property
    def steps(self) -> int:
        return self.best.shape[0]

    @property
    def markets(self) -> int:
        return self.best.shape[2]

    def mid(self) -> np.ndarray:
        """The mid price in ticks, float32 [steps, markets]."""
        return ((self.best[:, BID] + self.best[:, ASK]) / 2).astype(np.float32)


def simulate(seed: int, markets: int, steps: int) -> Tape:
    """Runs `markets` independent markets for `steps` steps (after a burn-in nobody sees).

    The same arguments give the same tape. Different seeds give unrelated markets.
    """
    book = _Book(np.random.default_rng(seed), markets)
    for _ in range(_BURN_IN_STEPS):
        book.step()
    tape = Tape(
        volume=np.empty((steps, 2, markets, RECORDED_LEVELS), np.int32),
        best=np.empty((steps, 2, markets), np.int32),
        traded=np.empty((steps, 2, markets), np.int32),
        added=np.empty((steps, 2, markets), np.int32),
        cancelled=np.empty((steps, 2, markets), np.int32),
    )
    for step in range(steps):
        tape.traded[step], tape.added[step], tape.cancelled[step] = book.step()
        tape.volume[step] = book.volume[:, :, :RECORDED_LEVELS]
        tape.best[step] = book.best
    return tape


class _Book:
    """The books of all markets: `volume[side, market, level]`, level 0 at `best[side, market]`, one tick a level."""

    def __init__(self, random: np.random.Generator, markets: int) -> None:
        self.random = random
        self.volume = self._fresh_lots((2, markets, _BOOK_LEVELS))
        self.best = np.empty((2, markets), np.int64)
        self.best[BID], self.best[ASK] = 9_999, 10_001
        self.regime = random.integers(len(_REGIMES), size=markets)
        self.persistence = np.zeros((2, markets))
        # Orders crowd towards the best price; each market has its own liquidity and its own taste for depth.
        decay = random.uniform(0.03, 0.12, size=(markets, 1))
        liquidity = random.uniform(0.7, 1.4, size=(markets, 1))
        self.arrival_profile = liquidity * np.exp(-decay * np.arange(_BOOK_LEVELS))

    def step(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One step of every market; gives the lots traded, added and cancelled, each [side, market]."""
        self._change_regimes()
        pressure = self._pressure()
        cancelled = self._cancel(pressure)
        traded = self._trade(pressure)
        self._close_gaps()
        added = self._improve(pressure) + self._add()
        return traded, added, cancelled

    def _change_regimes(self) -> None:
        markets = self.regime.size
        change = self.random.random(markets) < _REGIME_CHANGE_RATE
        self.regime = np.where(change, self.random.integers(len(_REGIMES), size=markets), self.regime)

    def _of_regime(self, name: str) -> np.ndarray:
        return np.array([getattr(regime, name) for regime in _REGIMES])[self.regime]

    def _pressure(self) -> np.ndarray:
        """Between -1 (everything sells) and 1 (everything buys), per market."""
        near = self.volume[:, :, :4].sum(axis=2)
        imbalance = (near[BID] - near[ASK]) / np.maximum(near.sum(axis=0), 1)
        flow = self.persistence[ASK] - self.persistence[BID]
        return np.tanh(self._of_regime("drift") + 0.5 * imbalance + 0.6 * flow)

    def _cancel(self, pressure: np.ndarray) -> np.ndarray:
        # Orders that rest in the way of the flow withdraw first: asks when buyers press, bids when sellers do.
        flight = np.stack([1.0 - 0.7 * pressure, 1.0 + 0.7 * pressure])
        rate = np.clip(self._of_regime("cancel_rate") * flight, 0.0, 0.5)
        gone = self.random.binomial(self.volume, rate[:, :, None])
        self.volume -= gone
        return gone.sum(axis=2)

    def _trade(self, pressure: np.ndarray) -> np.ndarray:
        share = np.stack([1.0 - pressure, 1.0 + pressure]) / 2
        rate = np.clip(self._of_regime("market_order_rate") * share, 0.0, 0.95)
        arrives = self.random.random(rate.shape) < rate
        size = np.where(arrives, self._order_lots(rate.shape, smallest=6.0), 0)
        before = np.cumsum(self.volume, axis=2) - self.volume
        taken = np.clip(size[:, :, None] - before, 0, self.volume)
        self.volume -= taken
        self.persistence = 0.93 * self.persistence + 0.10 * arrives
        return taken.sum(axis=2)

    def _close_gaps(self) -> None:
        """Moves each side's best price back to the first one that still has lots, and opens new prices behind."""
        full = self.volume > 0
        shift = np.where(full.any(axis=2), full.argmax(axis=2), _BOOK_LEVELS)
        source = np.arange(_BOOK_LEVELS) + shift[:, :, None]
        fresh = source >= _BOOK_LEVELS
        moved = np.take_along_axis(self.volume, np.minimum(source, _BOOK_LEVELS - 1), axis=2)
        self.volume = np.where(fresh, self._fresh_lots(fresh.shape), moved)
        self.best[BID] -= shift[BID]
        self.best[ASK] += shift[ASK]

    def _improve(self, pressure: np.ndarray) -> np.ndarray:
        """A limit order inside the spread becomes the new best price: likelier in a wide spread, and with the flow."""
        spread = self.best[ASK] - self.best[BID]
        eager = np.stack([1.0 + pressure, 1.0 - pressure]) / 2
        arrives = self.random.random(eager.shape) < np.clip(0.35 * eager * (spread - 1), 0.0, 0.9)
        # Only one side may step into a single free tick; a coin decides, so that neither is favoured.
        clash = arrives[BID] & arrives[ASK] & (spread <= 2)
        arrives[self.random.integers(2, size=clash.size), np.arange(clash.size)] &= ~clash
        lots = self._order_lots(arrives.shape, smallest=3.0)
        improved = np.concatenate([lots[:, :, None], self.volume[:, :, :-1]], axis=2)
        self.volume = np.where(arrives[:, :, None], improved, self.volume)
        self.best[BID] += arrives[BID]
        self.best[ASK] -= arrives[ASK]
        return np.where(arrives, lots, 0)

    def _add(self) -> np.ndarray:
        """At most one limit order a price and step."""
        rate = self._of_regime("limit_order_rate")[:, None] * self.arrival_profile
        arrives = self.random.random(self.volume.shape) < rate
        lots = np.where(arrives, self._order_lots(arrives.shape, smallest=2.0), 0)
        self.volume += lots
        return lots.sum(axis=2)

    def _order_lots(self, shape: tuple[int, ...], smallest: float) -> np.ndarray:
        lots = smallest * (1.0 + self.random.pareto(_TAIL_EXPONENT, size=shape))
        return np.minimum(lots, _LARGEST_ORDER).astype(np.int64)

    def _fresh_lots(self, shape: tuple[int, ...]) -> np.ndarray:
        return 1 + self.random.poisson(12.0, size=shape)
