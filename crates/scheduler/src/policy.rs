//! When a batch closes: a pure function of the time, of what waits, and of what a batch is predicted to cost.

use std::time::{Duration, Instant};

use crate::order::Rank;
use crate::terms::Terms;
use crate::{Config, Forming, GroupId, Policy};

/// In place of a cap beyond the clock's end.
const FOREVER: Duration = Duration::from_hours(24);

/// What the policy knows of a group in which requests wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) group: GroupId,
    /// Its first request in order.
    pub(crate) head: Rank,
    /// How many requests wait, and how many rows they have.
    pub(crate) len: usize,
    pub(crate) rows: usize,
    /// When the first and the last of them were submitted.
    pub(crate) oldest: Instant,
    pub(crate) newest: Instant,
    /// The earliest deadline among them.
    pub(crate) tightest: Option<Instant>,
    /// The typical gap between arrivals.
    pub(crate) gap: Option<Duration>,
    /// Whether waiting with this many has paid.
    pub(crate) waits_pay: bool,
    /// What every batch costs, whatever its size.
    pub(crate) fixed_cost: Option<Duration>,
    /// What the batch that could go now costs at most, as far as can be told.
    pub(crate) batch_cost: Duration,
    /// What the largest batch costs at most.
    pub(crate) largest_cost: Duration,
}

/// What holds for every group alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances {
    pub(crate) policy: Policy,
    pub(crate) max_wait: Duration,
    /// Whether another worker is idle beside the one that asks.
    pub(crate) others_idle: bool,
    /// Whether nothing more will arrive.
    pub(crate) draining: bool,
}

impl Circumstances {
    pub(crate) const fn new(config: &Config, others_idle: bool, draining: bool) -> Self {
        Self { policy: config.policy, max_wait: config.max_wait, others_idle, draining }
    }
}

/// What an idle worker does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Take a batch of this group.
    Close(GroupId),
    /// Nothing yet, unless the terms are met.
    Wait(Terms),
    /// Nothing waits.
    Idle,
}

/// Decides for an idle worker. Of the groups that are ready, the one goes whose first request is first in order.
pub(crate) fn decide(now: Instant, waiting: &[Waiting], circumstances: &Circumstances) -> Decision {
    let ready =
        waiting.iter().filter(|group| ready_at(now, group, circumstances) <= now).min_by_key(|group| group.head);
    if let Some(group) = ready {
        return Decision::Close(group.group);
    }
    let Some(until) = waiting.iter().map(|group| ready_at(now, group, circumstances)).min() else {
        return Decision::Idle;
    };
    let largest = waiting.iter().map(|group| group.largest_cost).max().unwrap_or_default();
    Decision::Wait(Terms {
        until,
        group: match waiting {
            [only] => Some((only.group, only.group.full_rows() - only.rows)),
            _ => None,
        },
        due_before: until + largest,
    })
}

/// When a group's batch closes if nothing more arrives; not after `now` if it closes now.
fn ready_at(now: Instant, group: &Waiting, circumstances: &Circumstances) -> Instant {
    if circumstances.draining || group.rows >= group.group.full_rows() {
        return now;
    }
    let capped = group.oldest.checked_add(circumstances.max_wait).unwrap_or(now + FOREVER);
    // Before the clock's beginning means: at once.
    let latest_start = group.tightest.map(|deadline| deadline.checked_sub(group.batch_cost).unwrap_or(now));
    let bound = latest_start.map_or(capped, |start| start.min(capped));
    match circumstances.policy {
        Policy::Eager => now,
        Policy::Deferred => bound,
        Policy::Adaptive => bound.min(worth_waiting_until(now, group, circumstances)),
        Policy::Custom(policy) => bound.min(policy(&Forming {
            now,
            requests: group.len,
            rows: group.rows,
            full_rows: group.group.full_rows(),
            oldest: group.oldest,
            newest: group.newest,
            tightest: group.tightest,
            gap: group.gap,
            fixed_cost: group.fixed_cost,
            batch_cost: group.batch_cost,
            others_idle: circumstances.others_idle,
        })),
    }
}

/// How long the next arrival is worth a wait.
///
/// Let `n` requests wait, let a batch cost `a + b n`, and let the next arrival be `d` away. Going now serves `n` in
/// `a + b n`; waiting serves `n + 1` in `d + a + b (n + 1)`. The latter is the higher rate exactly if `d < a / n`; and
/// for the latencies, waiting costs the `n` together `n d` and saves the newcomer about `a`, which is the same
/// comparison. So a batch waits while arrivals typically come closer together than `a / n`, and no longer than `a / n`
/// after the last one; and where such waits have paid before (see `patience`). With another worker idle the newcomer can go at once by itself, so there is nothing to gain.
fn worth_waiting_until(now: Instant, group: &Waiting, circumstances: &Circumstances) -> Instant {
    let (Some(gap), Some(fixed_cost)) = (group.gap, group.fixed_cost) else {
        return now;
    };
    let patience = fixed_cost / u32::try_from(group.len).unwrap_or(u32::MAX);
    if circumstances.others_idle || gap >= patience || !group.waits_pay {
        return now;
    }
    group.newest + patience
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::GroupConfig;
    use crate::order::Ticks;

    const MAX_WAIT: Duration = Duration::from_millis(5);

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn group(index: u32) -> GroupId {
        GroupId::new(index, &GroupConfig::up_to(NonZeroUsize::new(32).expect("positive")))
    }

    /// `len` requests of one row, the last of them submitted at `now`, in a group where nothing was learned yet.
    fn waiting(now: Instant, len: usize) -> Waiting {
        Waiting {
            group: group(0),
            head: Rank { place: 3, round: 0, due: Ticks::NEVER, submitted: Ticks::NEVER },
            len,
            rows: len,
            oldest: now,
            newest: now,
            tightest: None,
            gap: None,
            waits_pay: true,
            fixed_cost: None,
            batch_cost: Duration::ZERO,
            largest_cost: Duration::ZERO,
        }
    }

    fn under(policy: Policy) -> Circumstances {
        Circumstances { policy, max_wait: MAX_WAIT, others_idle: false, draining: false }
    }

    fn until(decision: Decision) -> Instant {
        match decision {
            Decision::Wait(terms) => terms.until,
            other => panic!("{other:?} instead of a wait"),
        }
    }

    #[test]
    fn a_full_batch_closes_at_once_under_every_policy() {
        let now = Instant::now();
        for policy in [Policy::Eager, Policy::Deferred, Policy::Adaptive] {
            assert_eq!(decide(now, &[waiting(now, 32)], &under(policy)), Decision::Close(group(0)));
        }
    }

    #[test]
    fn an_eager_worker_takes_what_there_is() {
        let now = Instant::now();
        assert_eq!(decide(now, &[waiting(now, 1)], &under(Policy::Eager)), Decision::Close(group(0)));
    }

    #[test]
    fn a_deferred_batch_closes_when_its_oldest_member_has_waited_the_maximum() {
        let now = Instant::now();
        let batch = [waiting(now, 2)];
        let deferred = under(Policy::Deferred);
        assert_eq!(until(decide(now, &batch, &deferred)), now + MAX_WAIT);
        assert_eq!(decide(now + MAX_WAIT, &batch, &deferred), Decision::Close(group(0)));
    }

    #[test]
    fn a_deferred_batch_closes_at_the_last_moment_for_its_tightest_deadline() {
        let now = Instant::now();
        let batch = [Waiting { tightest: Some(now + micros(3_000)), batch_cost: micros(1_000), ..waiting(now, 2) }];
        assert_eq!(until(decide(now, &batch, &under(Policy::Deferred))), now + micros(2_000));
    }

    #[test]
    fn an_adaptive_worker_goes_at_once_at_low_load() {
        let now = Instant::now();
        let quiet = Waiting { gap: Some(micros(5_000)), fixed_cost: Some(micros(200)), ..waiting(now, 1) };
        for batch in [quiet, waiting(now, 1)] {
            assert_eq!(decide(now, &[batch], &under(Policy::Adaptive)), Decision::Close(group(0)));
        }
    }

    #[test]
    fn an_adaptive_worker_gathers_a_burst_while_the_next_arrival_pays() {
        let now = Instant::now();
        let burst = |len| Waiting { gap: Some(micros(5)), fixed_cost: Some(micros(200)), ..waiting(now, len) };
        let adaptive = under(Policy::Adaptive);
        assert_eq!(until(decide(now, &[burst(1)], &adaptive)), now + micros(200));
        assert_eq!(until(decide(now, &[burst(10)], &adaptive)), now + micros(20));
        assert_eq!(decide(now + micros(20), &[burst(10)], &adaptive), Decision::Close(group(0)));
        // Forty requests would save the next one 5 microseconds: no more than it costs them to wait for it.
        let costly = Waiting { rows: 31, ..burst(40) };
        assert_eq!(decide(now, &[costly], &adaptive), Decision::Close(group(0)));
    }

    #[test]
    fn an_adaptive_worker_does_not_wait_where_waiting_has_not_paid() {
        let now = Instant::now();
        let burst = Waiting { gap: Some(micros(5)), fixed_cost: Some(micros(200)), ..waiting(now, 1) };
        let vain = Waiting { waits_pay: false, ..burst };
        assert_eq!(decide(now, &[vain], &under(Policy::Adaptive)), Decision::Close(group(0)));
    }

    #[test]
    fn an_adaptive_worker_does_not_wait_where_another_is_idle() {
        let now = Instant::now();
        let burst = Waiting { gap: Some(micros(5)), fixed_cost: Some(micros(200)), ..waiting(now, 1) };
        let circumstances = Circumstances { others_idle: true, ..under(Policy::Adaptive) };
        assert_eq!(decide(now, &[burst], &circumstances), Decision::Close(group(0)));
    }

    #[test]
    fn an_adaptive_worker_never_waits_longer_than_a_deferring_one() {
        let now = Instant::now();
        let slow = Waiting { gap: Some(micros(500)), fixed_cost: Some(micros(900_000)), ..waiting(now, 1) };
        let [adaptive, deferred] =
            [Policy::Adaptive, Policy::Deferred].map(|policy| decide(now, &[slow], &under(policy)));
        assert_eq!(until(adaptive), until(deferred));
    }

    #[test]
    fn a_custom_policy_decides_within_the_bounds_that_hold_for_all() {
        const LONG: Duration = Duration::from_secs(1);
        let now = Instant::now();
        let [patient, hasty] = [|forming: &Forming| forming.now + LONG, |forming: &Forming| forming.oldest];
        let batch = waiting(now, 2);
        assert_eq!(until(decide(now, &[batch], &under(Policy::Custom(patient)))), now + MAX_WAIT);
        assert_eq!(decide(now, &[batch], &under(Policy::Custom(hasty))), Decision::Close(group(0)));
        let pairs = |forming: &Forming| {
            forming.newest + if forming.rows.is_multiple_of(2) { Duration::ZERO } else { micros(40) }
        };
        assert_eq!(decide(now, &[batch], &under(Policy::Custom(pairs))), Decision::Close(group(0)));
        assert_eq!(until(decide(now, &[waiting(now, 3)], &under(Policy::Custom(pairs)))), now + micros(40));
    }

    #[test]
    fn nothing_is_held_back_once_nothing_more_will_come() {
        let now = Instant::now();
        let draining = Circumstances { draining: true, ..under(Policy::Deferred) };
        assert_eq!(decide(now, &[waiting(now, 1)], &draining), Decision::Close(group(0)));
        assert_eq!(decide(now, &[], &draining), Decision::Idle);
    }

    #[test]
    fn of_the_groups_that_are_ready_the_most_urgent_goes_first() {
        let now = Instant::now();
        let ready = |index, level| Waiting {
            group: group(index),
            head: Rank { place: level, round: 0, due: Ticks::NEVER, submitted: Ticks::NEVER },
            ..waiting(now, 32)
        };
        let urgent_but_not_ready = Waiting { rows: 1, ..ready(2, 1) };
        let groups = [ready(0, 4), urgent_but_not_ready, ready(1, 2)];
        assert_eq!(decide(now, &groups, &under(Policy::Deferred)), Decision::Close(group(1)));
    }

    #[test]
    fn a_wait_for_one_group_says_what_would_end_it() {
        let now = Instant::now();
        let deferred = under(Policy::Deferred);
        let one = Waiting { largest_cost: micros(700), ..waiting(now, 30) };
        let until = now + MAX_WAIT;
        let terms = Terms { until, group: Some((group(0), 2)), due_before: until + micros(700) };
        assert_eq!(decide(now, &[one], &deferred), Decision::Wait(terms));
        let other = Waiting { group: group(1), ..waiting(now, 1) };
        let terms = Terms { group: None, ..terms };
        assert_eq!(decide(now, &[one, other], &deferred), Decision::Wait(terms));
    }
}
