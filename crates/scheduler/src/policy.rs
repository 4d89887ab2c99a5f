//! When a batch closes: a pure function of the time, of what waits, and of what a batch is predicted to cost.

use std::time::{Duration, Instant};

use crate::control::Terms;
use crate::order::Rank;
use crate::{Config, GroupId, Policy};

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
    /// What every batch costs, whatever its size.
    pub(crate) fixed_cost: Option<Duration>,
    /// What the batch would cost that could go now.
    pub(crate) batch_cost: Duration,
    /// What the largest batch would cost.
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
            [only] => Some((only.group, only.group.max_rows() - only.rows)),
            _ => None,
        },
        due_before: until + largest,
    })
}

/// When a group's batch closes if nothing more arrives; not after `now` if it closes now.
fn ready_at(now: Instant, group: &Waiting, circumstances: &Circumstances) -> Instant {
    if circumstances.draining || group.rows >= group.group.max_rows() {
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
    }
}

/// How long the next arrival is worth a wait.
///
/// Let `n` requests wait, let a batch cost `a + b n`, and let the next arrival be `d` away. Going now serves `n` in
/// `a + b n`; waiting serves `n + 1` in `d + a + b (n + 1)`. The latter is the higher rate exactly if `d < a / n`; and
/// for the latencies, waiting costs the `n` together `n d` and saves the newcomer about `a`, which is the same
/// comparison. So a batch waits while arrivals typically come closer together than `a / n`, and no longer than `a / n`
/// after the last one. With another worker idle the newcomer can go at once by itself, so there is nothing to gain.
fn worth_waiting_until(now: Instant, group: &Waiting, circumstances: &Circumstances) -> Instant {
    let (Some(gap), Some(fixed_cost)) = (group.gap, group.fixed_cost) else {
        return now;
    };
    let patience = fixed_cost / u32::try_from(group.len).unwrap_or(u32::MAX);
    if circumstances.others_idle || gap >= patience {
        return now;
    }
    group.newest + patience
}
