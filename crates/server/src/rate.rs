//! How often a caller may ask: a rate on average, and a burst after a pause.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A token bucket, kept as one number: the time at which it will be full again (the generic cell rate algorithm of ITU-T
/// I.371). Asking takes no lock.
#[derive(Debug)]
pub(crate) struct Rate {
    epoch: Instant,
    /// Nanoseconds that one request takes out.
    cost: u64,
    /// Nanoseconds that the bucket holds.
    depth: u64,
    /// Nanoseconds from the epoch to when the bucket is full. Written by whoever takes, and alone: nothing hangs on it,
    /// so that relaxed ordering is enough.
    full_at: AtomicU64,
}

impl Rate {
    /// A full bucket, at `epoch`.
    pub(crate) fn new(epoch: Instant, per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let cost = 1_000_000_000 / u64::from(per_second.get());
        Self { epoch, cost, depth: cost * u64::from(burst.get()), full_at: AtomicU64::new(0) }
    }

    /// Takes one request out.
    ///
    /// # Errors
    /// How long it is until there is one, if there is none now; then nothing is taken.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        let now = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        let taken = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let after = full_at.max(now) + self.cost;
            (after - now <= self.depth).then_some(after)
        });
        let missing = |full_at: u64| Duration::from_nanos(full_at + self.cost - now - self.depth);
        taken.map(drop).map_err(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_then_the_rate_holds() {
        let (start, number) = (Instant::now(), |n| NonZeroU32::new(n).expect("not zero"));
        let rate = Rate::new(start, number(10), number(3));
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        for _ in 0..3 {
            assert_eq!(rate.take(at(0)), Ok(()));
        }
        assert_eq!(rate.take(at(0)), Err(Duration::from_millis(100)));
        assert_eq!(rate.take(at(99)), Err(Duration::from_millis(1)), "what was refused took nothing");
        assert_eq!(rate.take(at(100)), Ok(()));
        assert!(rate.take(at(100)).is_err());
        let of_a_pause = (0..10).filter(|_| rate.take(at(60_000)).is_ok()).count();
        assert_eq!(of_a_pause, 3, "a pause saves up no more than the burst");
        let over_a_second = (0..1000).filter(|ms| rate.take(at(60_001 + ms)).is_ok()).count();
        assert_eq!(over_a_second, 10);
    }
}
