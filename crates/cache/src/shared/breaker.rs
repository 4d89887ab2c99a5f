//! When not to ask: a circuit breaker.

use std::time::{Duration, Instant};

/// Failures in a row that open the breaker.
const TOLERATED: u32 = 5;

/// How long it stays open the first time; each probe that fails doubles it, up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A circuit breaker: after five failures in a row nothing is tried for a pause, then one call at a time as a probe. A
/// probe that succeeds closes it; one that fails doubles the pause.
///
/// Pure: time comes in as an argument. While it is open at most one call a pause is let through, so what a dead server
/// costs is bounded by one call's budget in 2 s once the pauses have grown.
#[derive(Debug, Clone)]
pub(super) struct Breaker {
    state: State,
    /// Counts changes of state, so that what was tried under another state is told from what counts in this one.
    term: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
        pause: Duration,
    },
    /// A probe is out. If it has not been heard of by `until` another may go.
    HalfOpen {
        until: Instant,
        pause: Duration,
    },
}

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// Nothing, for a while.
    Open,
    /// A single probe.
    HalfOpen,
}

/// Leave to try once, to be given back with the outcome.
#[derive(Debug, Clone, Copy)]
#[must_use = "the outcome is reported with it"]
pub(super) struct Permit {
    term: u64,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { state: State::Closed { failures: 0 }, term: 0 }
    }

    /// Leave to try now, if there is any.
    pub(super) fn permit(&mut self, now: Instant) -> Option<Permit> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { until, pause } | State::HalfOpen { until, pause } if until <= now => {
                self.enter(State::HalfOpen { until: now + pause, pause });
            }
            State::Open { .. } | State::HalfOpen { .. } => return None,
        }
        Some(Permit { term: self.term })
    }

    /// It worked. Of no account if the state has changed since the permit was given.
    pub(super) fn succeed(&mut self, permit: Permit) {
        if permit.term == self.term {
            match &mut self.state {
                State::Closed { failures } => *failures = 0,
                State::Open { .. } | State::HalfOpen { .. } => self.enter(State::Closed { failures: 0 }),
            }
        }
    }

    /// It failed. Of no account if the state has changed since the permit was given: of a hundred calls that time out
    /// together the first five say it all.
    pub(super) fn fail(&mut self, permit: Permit, now: Instant) {
        if permit.term != self.term {
            return;
        }
        match &mut self.state {
            State::Closed { failures } => {
                *failures += 1;
                if *failures == TOLERATED {
                    self.enter(State::Open { until: now + SHORTEST_PAUSE, pause: SHORTEST_PAUSE });
                }
            }
            State::Open { pause, .. } | State::HalfOpen { pause, .. } => {
                let pause = LONGEST_PAUSE.min(2 * *pause);
                self.enter(State::Open { until: now + pause, pause });
            }
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.term += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fail_until_open(breaker: &mut Breaker, now: Instant) {
        while let Some(permit) = breaker.permit(now) {
            breaker.fail(permit, now);
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_starts_over() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..3 {
            for _ in 1..TOLERATED {
                let permit = breaker.permit(now).expect("closed");
                breaker.fail(permit, now);
            }
            let permit = breaker.permit(now).expect("closed");
            breaker.succeed(permit);
        }
        for _ in 0..TOLERATED {
            let permit = breaker.permit(now).expect("closed");
            breaker.fail(permit, now);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.permit(now).is_none());
    }

    #[test]
    fn a_probe_that_succeeds_closes_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        fail_until_open(&mut breaker, now);
        let probe = breaker.permit(now + SHORTEST_PAUSE).expect("a probe");
        assert!(breaker.permit(now + SHORTEST_PAUSE).is_none(), "one probe at a time");
        breaker.succeed(probe);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(breaker.permit(now + SHORTEST_PAUSE).is_some());
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_start_short_again_after_a_success() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new();
        fail_until_open(&mut breaker, now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let State::Open { until, .. } = breaker.state else { panic!("{breaker:?}") };
            pauses.push(until - now);
            assert!(breaker.permit(until - Duration::from_nanos(1)).is_none());
            now = until;
            let probe = breaker.permit(now).expect("a probe");
            breaker.fail(probe, now);
        }
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1600].map(Duration::from_millis));
        assert!(pauses[5..].iter().all(|pause| *pause == LONGEST_PAUSE));
        let probe = breaker.permit(now + LONGEST_PAUSE).expect("a probe");
        breaker.succeed(probe);
        fail_until_open(&mut breaker, now);
        assert!(matches!(breaker.state, State::Open { pause: SHORTEST_PAUSE, .. }));
    }

    #[test]
    fn a_probe_that_is_never_heard_of_does_not_keep_it_from_closing() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        fail_until_open(&mut breaker, now);
        let lost = breaker.permit(now + SHORTEST_PAUSE).expect("a probe");
        let next = breaker.permit(now + 2 * SHORTEST_PAUSE).expect("another probe");
        breaker.fail(lost, now + 2 * SHORTEST_PAUSE);
        breaker.succeed(next);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Try,
        Succeed(prop::sample::Index),
        Fail(prop::sample::Index),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Try),
            1 => any::<prop::sample::Index>().prop_map(Step::Succeed),
            3 => any::<prop::sample::Index>().prop_map(Step::Fail),
            2 => (0_u64..300).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn with_a_server_that_never_answers_a_call_is_let_through_once_a_pause(waits in prop::collection::vec(0_u64..500, 1..100)) {
            let mut now = Instant::now();
            let (mut breaker, start) = (Breaker::new(), now);
            let mut tried = 0_u32;
            for wait in waits {
                now += Duration::from_millis(wait);
                if let Some(permit) = breaker.permit(now) {
                    tried += 1;
                    breaker.fail(permit, now);
                }
            }
            let pauses = (now - start).as_millis() / SHORTEST_PAUSE.as_millis();
            prop_assert!(u128::from(tried) <= u128::from(TOLERATED) + 1 + pauses);
        }

        #[test]
        fn whatever_is_reported_late_it_recovers_within_the_longest_pause(steps in steps()) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new();
            let mut out = Vec::new();
            for step in steps {
                match step {
                    Step::Try => out.extend(breaker.permit(now)),
                    Step::Succeed(index) if !out.is_empty() => {
                        let permit = out.swap_remove(index.index(out.len()));
                        breaker.succeed(permit);
                    }
                    Step::Fail(index) if !out.is_empty() => {
                        let permit = out.swap_remove(index.index(out.len()));
                        breaker.fail(permit, now);
                    }
                    Step::Wait(milliseconds) => now += Duration::from_millis(milliseconds),
                    Step::Succeed(_) | Step::Fail(_) => {}
                }
            }
            let permit = breaker.permit(now + LONGEST_PAUSE).expect("a try after the longest pause");
            breaker.succeed(permit);
            prop_assert_eq!(breaker.state(), BreakerState::Closed);
        }
    }
}
