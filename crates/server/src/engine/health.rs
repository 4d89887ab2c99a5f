//! Whether a variant takes requests.
//!
//! ```text
//!            three batches in a row fail              a fresh session of it runs
//! healthy ─────────────────────────────▶ taken out ───────────────────────────▶ healthy
//!                                            │  ▲
//!                                            └──┘ it does not: tried again a second later
//! ```

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use volley_telemetry::RecoveryMetrics;

/// So many batches in a row, and it is no accident.
const FAILURES: u32 = 3;

/// The health of one variant. Workers write it, once a batch; requests and readiness read it. Each field stands for
/// itself, so all orderings are relaxed.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Failed batches since the last that succeeded.
    failures: AtomicU32,
    out: AtomicBool,
    probed: AtomicBool,
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
    pub(crate) fn failed(&self, metrics: &RecoveryMetrics) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let newly_out = failures >= FAILURES && !self.out.swap(true, Ordering::Relaxed);
        if newly_out {
            metrics.set_healthy(false);
        }
        newly_out
    }

    /// Whether the caller is to find out if the variant works again: true once until [`probed`](Self::probed).
    pub(super) fn begin_probe(&self) -> bool {
        self.is_out() && !self.probed.swap(true, Ordering::Relaxed)
    }

    /// What a probe found.
    pub(super) fn probed(&self, works: bool, metrics: &RecoveryMetrics) {
        if works {
            self.failures.store(0, Ordering::Relaxed);
            self.out.store(false, Ordering::Relaxed);
            metrics.set_healthy(true);
        }
        self.probed.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use volley_telemetry::ModelLabels;

    use super::*;

    #[test]
    fn three_failures_in_a_row_take_it_out_and_a_probe_that_works_takes_it_in() {
        let metrics = RecoveryMetrics::register(ModelLabels { model: "net", version: "1", variant: "fp32" });
        let health = Health::default();
        assert!(!health.failed(&metrics) && !health.failed(&metrics));
        health.succeeded();
        assert!(!health.failed(&metrics) && !health.failed(&metrics) && !health.is_out());
        assert!(!health.begin_probe(), "it is not out");
        assert!(health.failed(&metrics) && health.is_out());
        assert!(!health.failed(&metrics), "it is out already");

        assert!(health.begin_probe());
        assert!(!health.begin_probe(), "one at a time");
        health.probed(false, &metrics);
        assert!(health.is_out() && health.begin_probe());
        health.probed(true, &metrics);
        assert!(!health.is_out());
        assert!(!health.failed(&metrics), "it begins anew");
    }
}
