//! Whether a cache pays for what is asked of it.

use std::time::Duration;

/// Look-ups after which it is judged whether they paid.
const WINDOW: u32 = 1024;

/// The longest pause, in windows.
const LONGEST_PAUSE: u32 = 16;

/// Decides for one kind of request whether to look it up at all.
///
/// A look-up costs the hashing of the input, the search and what storing a miss takes; what it gains is the computation
/// that a hit saves. Every 1024 look-ups the sum of the one is compared with that of the other, as measured. If they did
/// not pay, the next requests are not looked up: 1024 of them at first, twice as many each time the following look-ups
/// do not pay either, up to 16,384; half as many each time they do. Requests that are not looked up share no flight
/// either, for whoever would join does not know the key.
///
/// After a pause, what was stored before it may have left, so the first look-ups that follow see only repetitions among
/// themselves. Where inputs come again only after longer, and computing them is cheap, the pauses stay.
///
/// What look-ups that do not pay can cost is bounded: of any `n` requests in a row, those looked up in windows that do
/// not pay are at most `n / 2 + 1024`, and at most `n / 17 + 5 * 1024` as long as none pays.
///
/// Pure: the caller tells what things cost, counts are all the time there is. Not for use by several threads at once.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use volley_cache::Admission;
///
/// let (look_up, compute) = (Duration::from_micros(2), Duration::from_micros(200));
/// let mut admission = Admission::default();
/// for n in 0..10_000 {
///     if admission.admits() {
///         // One in ten is asked for again.
///         if n % 10 == 0 { admission.hit(look_up) } else { admission.missed(look_up, compute) }
///     }
/// }
/// assert!(!admission.is_pausing(), "a tenth of 200 µs is more than 2 µs");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Admission {
    /// Requests still to go without.
    pausing: u32,
    /// The last pause, in windows; zero before the first.
    pause: u32,
    hits: u32,
    misses: u32,
    /// Over the window's look-ups.
    spent: Duration,
    /// Over the window's misses.
    computed: Duration,
    /// A computation's mean of the last window that had one, for windows of nothing but hits.
    compute: Duration,
}

impl Admission {
    /// Whether the next request is to be looked up. If it is, what came of it is owed to [`hit`](Self::hit) or
    /// [`missed`](Self::missed).
    pub fn admits(&mut self) -> bool {
        let admits = self.pausing == 0;
        self.pausing = self.pausing.saturating_sub(1);
        admits
    }

    /// Whether the next request will not be looked up.
    #[must_use]
    pub fn is_pausing(&self) -> bool {
        self.pausing > 0
    }

    /// A look-up was answered, from memory or by someone else's computation.
    pub fn hit(&mut self, look_up: Duration) {
        self.hits += 1;
        self.spend(look_up);
    }

    /// A look-up was in vain, and the value was computed. Both durations are of a processor's time.
    pub fn missed(&mut self, look_up: Duration, compute: Duration) {
        self.misses += 1;
        self.computed += compute;
        self.spend(look_up);
    }

    fn spend(&mut self, look_up: Duration) {
        self.spent += look_up;
        if self.hits + self.misses < WINDOW {
            return;
        }
        if self.misses > 0 {
            self.compute = self.computed / self.misses;
        }
        // Until something was computed, nobody knows what hits are worth: a warm cache begins with them.
        if !self.compute.is_zero() && self.spent > self.compute * self.hits {
            self.pause = (self.pause * 2).clamp(1, LONGEST_PAUSE);
            self.pausing = self.pause * WINDOW;
        } else {
            self.pause /= 2;
        }
        *self = Self { pausing: self.pausing, pause: self.pause, compute: self.compute, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOOK_UP: Duration = Duration::from_nanos(1500);

    /// Asks `n` times, each a hit if `hits` says so; the requests looked up.
    fn ask(admission: &mut Admission, n: u32, compute: Duration, hits: impl Fn(u32) -> bool) -> u32 {
        let looked_up = (0..n).filter(|n| {
            let admits = admission.admits();
            match admits && hits(*n) {
                true => admission.hit(LOOK_UP),
                false if admits => admission.missed(LOOK_UP, compute),
                false => {}
            }
            admits
        });
        u32::try_from(looked_up.count()).expect("no more than asked")
    }

    #[test]
    fn where_nothing_is_asked_twice_one_request_in_seventeen_is_looked_up_in_the_long_run() {
        let mut admission = Admission::default();
        let n = 2_000_000;
        let looked_up = ask(&mut admission, n, Duration::from_millis(1), |_| false);
        assert!(looked_up <= n / 17 + 5 * WINDOW, "{looked_up}");
        assert!(looked_up >= n / 18, "it keeps trying");
    }

    #[test]
    fn where_hits_pay_every_request_is_looked_up() {
        let mut admission = Admission::default();
        // 2 % of 100 µs is more than 1.5 µs.
        assert_eq!(ask(&mut admission, 100_000, Duration::from_micros(100), |n| n % 50 == 0), 100_000);
    }

    #[test]
    fn hits_that_save_less_than_look_ups_cost_do_not_pay() {
        let mut admission = Admission::default();
        // 2 % of 50 µs is less than 1.5 µs.
        assert!(ask(&mut admission, 1_000_000, Duration::from_micros(50), |n| n % 50 == 0) < 70_000);
    }

    #[test]
    fn look_ups_go_on_until_it_is_known_what_they_save() {
        let mut admission = Admission::default();
        assert_eq!(ask(&mut admission, 10_000, Duration::ZERO, |_| true), 10_000);
    }

    #[test]
    fn nothing_but_hits_is_judged_by_what_was_computed_before() {
        let mut admission = Admission::default();
        ask(&mut admission, WINDOW, Duration::from_micros(100), |n| n % 50 == 0);
        assert_eq!(ask(&mut admission, 100_000, Duration::ZERO, |_| true), 100_000);
    }

    #[test]
    fn look_ups_come_back_within_the_longest_pause_of_their_paying_again() {
        let mut admission = Admission::default();
        ask(&mut admission, 1_000_000, Duration::from_millis(1), |_| false);
        ask(&mut admission, (LONGEST_PAUSE + 1) * WINDOW, Duration::from_millis(1), |n| n % 2 == 0);
        assert_eq!(ask(&mut admission, 100_000, Duration::from_millis(1), |n| n % 2 == 0), 100_000);
    }

    proptest! {
        #[test]
        fn what_does_not_pay_is_bounded_whatever_is_asked(
            phases in prop::collection::vec((1_u32..30_000, 1_u32..100, 0_u64..400), 1..12),
        ) {
            let (mut admission, mut asked, mut unpaid) = (Admission::default(), 0, 0);
            for (n, one_in, micros) in phases {
                for n in 0..n {
                    asked += 1;
                    if !admission.admits() {
                        continue;
                    }
                    if n % one_in == 0 {
                        admission.hit(LOOK_UP);
                    } else {
                        admission.missed(LOOK_UP, Duration::from_micros(micros));
                    }
                    // A window that did not pay ends with a pause.
                    unpaid += if admission.is_pausing() { WINDOW } else { 0 };
                    prop_assert!(unpaid <= asked / 2 + WINDOW, "{unpaid} of {asked}");
                }
            }
        }
    }
}
