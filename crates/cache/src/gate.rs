//! How long this process may go without hearing of invalidations made elsewhere.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// What the first tier does while it may have missed invalidations for longer than it is allowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenCutOff {
    /// It answers nothing: each look-up computes, or joins who computes. What is served is never older than the bound.
    Bypass,
    /// It answers: late rather than not at all. Look-ups are counted all the same.
    Serve,
}

/// `until` of a tier that nobody else invalidates.
const ALWAYS: u64 = u64::MAX;

/// Until when the first tier is known to be coherent with others.
///
/// Written by whoever hears of invalidations, read by each hit. The two words need not agree: the worst that comes of
/// reading one of them late is a look-up's decision that would have been right a moment before.
#[derive(Debug)]
pub(crate) struct Gate {
    start: Instant,
    /// Nanoseconds after `start`.
    until: AtomicU64,
    serves: AtomicBool,
}

impl Gate {
    /// A gate that is open for ever.
    pub(crate) fn open() -> Self {
        Self { start: Instant::now(), until: AtomicU64::new(ALWAYS), serves: AtomicBool::new(false) }
    }

    pub(crate) fn bound(&self, until: Instant, when_cut_off: WhenCutOff) {
        self.serves.store(when_cut_off == WhenCutOff::Serve, Ordering::Relaxed);
        self.until.store(self.since_start(until), Ordering::Relaxed);
    }

    /// Moves the bound forward, never back.
    pub(crate) fn extend(&self, until: Instant) {
        self.until.fetch_max(self.since_start(until), Ordering::Relaxed);
    }

    /// What to do with a hit if the bound has passed. Reads the clock only if there is a bound.
    pub(crate) fn cut_off(&self, now: impl FnOnce() -> Instant) -> Option<WhenCutOff> {
        let until = self.until.load(Ordering::Relaxed);
        if until == ALWAYS || self.since_start(now()) <= until {
            return None;
        }
        Some(if self.serves.load(Ordering::Relaxed) { WhenCutOff::Serve } else { WhenCutOff::Bypass })
    }

    fn since_start(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.start).as_nanos()).unwrap_or(ALWAYS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bound_holds_until_it_passes_and_moves_forward_only() {
        let gate = Gate::open();
        let at = |seconds| gate.start + Duration::from_secs(seconds);
        gate.bound(at(10), WhenCutOff::Bypass);
        gate.extend(at(5));
        assert_eq!(gate.cut_off(|| at(10)), None);
        assert_eq!(gate.cut_off(|| at(11)), Some(WhenCutOff::Bypass));
        gate.extend(at(20));
        assert_eq!(gate.cut_off(|| at(11)), None);
        gate.bound(at(0), WhenCutOff::Serve);
        assert_eq!(gate.cut_off(|| at(1)), Some(WhenCutOff::Serve));
    }

    #[test]
    fn without_a_bound_no_clock_is_read() {
        assert_eq!(Gate::open().cut_off(|| panic!("read the clock")), None);
    }
}
