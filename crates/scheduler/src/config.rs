//! The settings of a scheduler.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// The settings of a [`Scheduler`](crate::Scheduler); the default suits most.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use volley_scheduler::{Config, Policy};
///
/// let config = Config { max_wait: Duration::from_millis(2), ..Config::default() };
/// assert!(matches!(config.policy, Policy::Adaptive));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How many requests each of the four lanes holds that no worker has taken yet. What does not fit is refused
    /// at once. Default 4096: at the throughput of the workers, this times four is the longest queue there can be. Room
    /// for all of them, some hundred bytes each, is taken when the scheduler is made.
    pub lane_capacity: NonZeroUsize,

    /// The longest that a batch is held back for more company while a worker is idle, counted from the
    /// submission of its oldest member. Default 5 ms. Has no effect on how long requests wait for a busy worker.
    pub max_wait: Duration,

    /// Waiting this long raises a request's effective priority by one lane. Default 100 ms. Shorter bounds the
    /// wait of the low lanes more tightly, longer protects the high lanes better (which keep half of the device in
    /// any case); more than the longest deadline
    /// in use makes it a matter of requests without deadlines only.
    pub aging_interval: Duration,

    /// When a batch closes while a worker is idle.
    pub policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lane_capacity: NonZeroUsize::new(4096).expect("4096 is not zero"),
            max_wait: Duration::from_millis(5),
            aging_interval: Duration::from_millis(100),
            policy: Policy::default(),
        }
    }
}

/// When an idle worker stops waiting for a batch to grow.
///
/// Under all of them a full batch goes at once, a batch goes no later than the last moment at which its tightest
/// deadline can still be met, and what arrives while every worker is busy goes together afterwards.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub enum Policy {
    /// An idle worker takes what there is, at once. The least latency at low load, small batches under bursts.
    Eager,
    /// Hold a batch back until its oldest member has waited [`Config::max_wait`]. The fewest, largest batches, for
    /// work whose fixed cost dominates (an `fsync`, a remote call), at the price of the median.
    Deferred,
    /// Hold a batch back only while the next arrival is expected to save more than the wait costs: an idle worker
    /// and low load go at once, a burst is gathered. Never longer than [`Policy::Deferred`] would.
    #[default]
    Adaptive,
    /// Hold a batch back until the time that this function says, and never longer than [`Policy::Deferred`] would. It is
    /// asked again whenever anything changes, so it should be pure and quick; a panic in it ends the worker that asked.
    ///
    /// # Examples
    ///
    /// Go at once unless the batch is nearly full; then wait up to a millisecond for the rest of it:
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use volley_scheduler::{Config, Forming, Policy};
    ///
    /// fn nearly_full(forming: &Forming) -> Instant {
    ///     let wait = if 4 * forming.rows >= 3 * forming.full_rows { Duration::from_millis(1) } else { Duration::ZERO };
    ///     forming.newest + wait
    /// }
    ///
    /// let config = Config { policy: Policy::Custom(nearly_full), ..Config::default() };
    /// ```
    Custom(fn(&Forming) -> Instant),
}

/// A batch that could go now, as a [`Policy::Custom`] sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forming {
    /// The time of asking.
    pub now: Instant,
    /// How many requests of the group wait.
    pub requests: usize,
    /// How many rows they have.
    pub rows: usize,
    /// The rows at which a batch is full, when it goes without asking.
    pub full_rows: usize,
    /// When the first of those that wait was submitted.
    pub oldest: Instant,
    /// When the last of them was.
    pub newest: Instant,
    /// The earliest of their deadlines. The batch goes in time for it without asking.
    pub tightest: Option<Instant>,
    /// The typical gap between arrivals (the geometric mean), once two have come.
    pub gap: Option<Duration>,
    /// What every batch costs, whatever its size, once one was executed.
    pub fixed_cost: Option<Duration>,
    /// What a batch of what waits hardly ever exceeds; zero while nothing recent is known.
    pub batch_cost: Duration,
    /// Whether another worker is idle beside the one that asks.
    pub others_idle: bool,
}
