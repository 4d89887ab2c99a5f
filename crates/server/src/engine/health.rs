//! Whether a variant takes requests.
//!
//! ```text
//!        three batches in a row find no session,
//!        or take too long                             a fresh session of it runs
//! healthy ─────────────────────────────▶ taken out ───────────────────────────▶ healthy
//!                                            │  ▲
//!                                            └──┘ it does not: tried again a second later
//! ```

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many batches in a row, and it is no accident.
const FAILURES: u32 = 3;
/// A probe that takes longer than this is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The health of one variant. Workers write it, once a batch; requests and readiness read it. Each atomic stands
/// for itself, so all orderings are relaxed.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Failed batches since the last that succeeded.
    failures: AtomicU32,
    out: AtomicBool,
    /// When the probe began that is under way. Only who probes locks it.
    probe: Mutex<Option<Instant>>,
}

impl Health {
    /// Whether it takes no requests.
    pub(crate) fn is_out(&self) -> bool {
        self.out.load(Ordering::Relaxed)
    }

    /// A batch succeeded.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A batch failed. True if the variant is taken out because of it.
    pub(crate) fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        failures >= FAILURES && !self.out.swap(true, Ordering::Relaxed)
    }

    /// Whether the caller is to find out if the variant works again: one at a time, as long as that one comes back.
    pub(super) fn begin_probe(&self, now: Instant) -> bool {
        let mut probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = self.is_out() && probe.is_none_or(|began| now.saturating_duration_since(began) >= PATIENCE);
        if begins {
            *probe = Some(now);
        }
        begins
    }

    /// What a probe found.
    pub(super) fn probed(&self, works: bool) {
        if works {
            self.failures.store(0, Ordering::Relaxed);
            self.out.store(false, Ordering::Relaxed);
        }
        *self.probe.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_take_it_out_and_a_probe_that_works_takes_it_in() {
        let health = Health::default();
        assert!(!health.failed() && !health.failed());
        health.succeeded();
        assert!(!health.failed() && !health.failed() && !health.is_out());
        let now = Instant::now();
        assert!(!health.begin_probe(now), "it is not out");
        assert!(health.failed() && health.is_out());
        assert!(!health.failed(), "it is out already");

        assert!(health.begin_probe(now));
        assert!(!health.begin_probe(now), "one at a time");
        assert!(health.begin_probe(now + PATIENCE), "unless that one does not come back");
        health.probed(false);
        assert!(health.is_out() && health.begin_probe(now));
        health.probed(true);
        assert!(!health.is_out());
        assert!(!health.failed(), "it begins anew");
    }
}
