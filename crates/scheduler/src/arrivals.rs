//! How fast a group's requests arrive.

use std::time::{Duration, Instant};

/// How much one gap counts against what was learned before.
const WEIGHT: f32 = 0.125;

/// The typical gap between two submissions of a group: their geometric mean, exponentially weighted.
///
/// The geometric mean, because arrivals come in bursts: callers that wait for their answers send again together when
/// a batch completes. Thirty gaps of 5 microseconds and one of 3 milliseconds are "about 6 microseconds" to whoever
/// decides whether the next one is worth a wait, where the arithmetic mean would say 100.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arrivals {
    newest: Option<Instant>,
    /// The bits of the mean as a float, which are all but its logarithm: between two powers of two they rise in
    /// proportion, where a logarithm bends by at most a twelfth of an octave.
    bits: Option<f32>,
}

impl Arrivals {
    /// Learns from a request submitted at `submitted`.
    pub(crate) fn observe(&mut self, submitted: Instant) {
        let Some(newest) = self.newest else {
            self.newest = Some(submitted);
            return;
        };
        // Lanes are drained one after the other, so submissions may come slightly out of order.
        let gap = submitted.saturating_duration_since(newest);
        let bits = (gap.as_nanos() as u64).max(1) as f32;
        let bits = bits.to_bits() as f32;
        let known = self.bits.unwrap_or(bits);
        self.bits = Some(known + WEIGHT * (bits - known));
        self.newest = Some(newest.max(submitted));
    }

    /// When the newest request was submitted.
    pub(crate) fn newest(&self) -> Option<Instant> {
        self.newest
    }

    /// The typical gap, once two requests were seen.
    pub(crate) fn gap(&self) -> Option<Duration> {
        self.bits.map(|bits| Duration::from_nanos(f32::from_bits(bits as u32) as u64))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn after(gaps: impl IntoIterator<Item = Duration>) -> Duration {
        let mut arrivals = Arrivals::default();
        let mut now = Instant::now();
        arrivals.observe(now);
        for gap in gaps {
            now += gap;
            arrivals.observe(now);
        }
        arrivals.gap().expect("two requests or more")
    }

    #[test]
    fn a_pause_between_bursts_hardly_changes_the_gap_within_them() {
        let burst = [Duration::from_micros(5); 31];
        let pause = Duration::from_millis(3);
        let gap = after((0..10).flat_map(|_| burst.into_iter().chain([pause])));
        assert!(gap < Duration::from_micros(15), "{gap:?}");
    }

    #[test]
    fn a_load_that_falls_is_noticed_within_a_few_requests() {
        let busy = [Duration::from_micros(5); 50];
        let quiet = [Duration::from_millis(5); 8];
        let gap = after(busy.into_iter().chain(quiet));
        assert!(gap > Duration::from_micros(200), "{gap:?}");
    }

    #[test]
    fn requests_out_of_order_do_not_turn_time_back() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        arrivals.observe(now + Duration::from_micros(10));
        arrivals.observe(now);
        assert_eq!(arrivals.newest(), Some(now + Duration::from_micros(10)));
    }
}
