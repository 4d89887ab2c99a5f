//! How much of the device each lane asks for.

use std::time::{Duration, Instant};

use crate::Priority;

/// The least time over which a rate is taken.
const LEAST: Duration = Duration::from_millis(10);
/// How long what was offered counts.
const MEMORY: Duration = Duration::from_millis(200);
/// What is left of the device to the lowest lanes in a prediction, however much the others ask for.
const LEAST_LEFT: f64 = 0.05;

/// The device time that arrives in each lane per unit of the workers' time, exponentially weighted.
#[derive(Debug)]
pub(crate) struct Offered {
    since: Instant,
    nanos: [u64; Priority::COUNT],
    share: [f64; Priority::COUNT],
}

impl Offered {
    pub(crate) const fn new(start: Instant) -> Self {
        Self { since: start, nanos: [0; Priority::COUNT], share: [0.0; Priority::COUNT] }
    }

    /// A request of this much device time arrived.
    pub(crate) fn add(&mut self, lane: Priority, nanos: u64) {
        self.nanos[lane.lane()] += nanos;
    }

    /// Brings the shares up to date.
    pub(crate) fn update(&mut self, now: Instant, workers: usize) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < LEAST {
            return;
        }
        let weight = 1.0 - (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        let time = elapsed.as_nanos() as f64 * workers as f64;
        for (share, nanos) in self.share.iter_mut().zip(&mut self.nanos) {
            *share += weight * (std::mem::take(nanos) as f64 / time - *share);
        }
        self.since = now;
    }

    /// By how much a wait in each lane grows because the lanes before it go on arriving.
    pub(crate) fn stretch(&self) -> [f64; Priority::COUNT] {
        let mut before = 0.0;
        self.share.map(|share| {
            let left: f64 = 1.0 - before;
            before += share;
            1.0 / left.max(LEAST_LEFT)
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_lane_waits_longer_by_what_arrives_before_it() {
        let mut now = Instant::now();
        let mut offered = Offered::new(now);
        for _ in 0..100 {
            now += Duration::from_millis(20);
            offered.add(Priority::Critical, 10_000_000);
            offered.add(Priority::High, 5_000_000);
            offered.add(Priority::Normal, 15_000_000);
            offered.update(now, 1);
        }
        let stretch = offered.stretch();
        for (found, expected) in stretch.into_iter().zip([1.0, 2.0, 4.0, 20.0]) {
            assert!((found / expected - 1.0).abs() < 0.02, "{stretch:?}");
        }
        offered.update(now + Duration::from_secs(2), 1);
        assert!(offered.stretch().into_iter().all(|stretch| stretch < 1.01), "what was offered is forgotten");
    }
}
