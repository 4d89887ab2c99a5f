//! Whether waiting for one more has paid.

use std::time::Instant;

/// Batch sizes told apart; larger ones share the last place.
const SIZES: usize = 64;
/// What a size starts with: waiting is tried.
const START: u8 = 160;
/// From here on waiting is taken to pay.
const ENOUGH: u8 = 128;

/// How often the next request came while a batch of some size was held back for it.
///
/// The gap between arrivals says nothing of callers that wait for an answer before they send again: when all of them
/// have sent, nobody else will, however short the gaps were. So the outcome of each wait is remembered by the number that
/// waited. A size at which waiting does not pay is tried again after some thirty batches, for callers come and go.
#[derive(Debug)]
pub(crate) struct Patience {
    pays: [u8; SIZES],
    /// How many wait for another, and until when.
    waiting: Option<(usize, Instant)>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { pays: [START; SIZES], waiting: None }
    }
}

impl Patience {
    /// `len` requests are held back for another one, until then at most.
    pub(crate) fn begin(&mut self, len: usize, until: Instant) {
        self.waiting.get_or_insert((len, until));
    }

    /// Learns how the wait went, and says whether to hold `len` requests back.
    pub(crate) fn is_worth(&mut self, len: usize, now: Instant) -> bool {
        if let Some((waited, until)) = self.waiting {
            let pays = &mut self.pays[waited.min(SIZES - 1)];
            if len > waited {
                *pays += (u8::MAX - *pays) / 4;
                self.waiting = None;
            } else if now >= until {
                *pays -= *pays / 4;
                self.waiting = None;
                // This one was held back for long enough.
                return false;
            }
        }
        let pays = &mut self.pays[len.min(SIZES - 1)];
        let is_worth = *pays >= ENOUGH;
        if !is_worth {
            *pays += 1;
        }
        is_worth
    }

    /// The requests have gone.
    pub(crate) fn end(&mut self) {
        self.waiting = None;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_size_at_which_nobody_comes_is_waited_at_once_in_thirty_times() {
        let (mut patience, mut now) = (Patience::default(), Instant::now());
        let mut waits = 0;
        for _ in 0..1_000 {
            if patience.is_worth(2, now) {
                waits += 1;
                patience.begin(2, now + Duration::from_millis(1));
                now += Duration::from_millis(1);
                assert!(!patience.is_worth(2, now));
            }
            patience.end();
        }
        assert!((10..50).contains(&waits), "{waits}");
        // One fewer is another matter.
        assert!(patience.is_worth(1, now));
    }

    #[test]
    fn a_size_at_which_most_waits_pay_goes_on_being_waited_at() {
        let (mut patience, mut now) = (Patience::default(), Instant::now());
        let mut waits = 0;
        for i in 0..1_000 {
            if patience.is_worth(2, now) {
                waits += 1;
                patience.begin(2, now + Duration::from_millis(1));
                now += Duration::from_millis(1);
                patience.is_worth(if i % 4 == 0 { 2 } else { 3 }, now);
            }
            patience.end();
        }
        assert!(waits > 900, "{waits}");
    }
}
