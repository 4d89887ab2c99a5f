//! Everything that waits, in the leader's hands: the only place that both arrivals and decisions touch.

use std::time::{Duration, Instant};

use crate::control::Watch;
use crate::entry::{Content, Entry, Item, Removed};
use crate::forecast::{Ahead, Forecast, Outlook};
use crate::group_queue::GroupQueue;
use crate::offered::Offered;
use crate::policy::{Circumstances, Decision, Waiting, decide};
use crate::turns::Turns;
use crate::{GroupId, Priority};

#[cfg(all(test, not(loom)))]
mod oracle;

/// How many withdrawn requests may linger, beside as many as there are live ones, before they are swept out.
const SLACK: usize = 64;

/// What waits, by group.
pub(crate) struct Queue<C> {
    aging_interval: Duration,
    epoch: Instant,
    /// When each worker's batch should be done.
    busy_until: Vec<Instant>,
    turns: Turns,
    offered: Offered,
    /// How many requests with a deadline came, by lane.
    with_deadline: [u64; Priority::COUNT],
    /// By the group's number; made when its first request comes.
    groups: Vec<Option<GroupQueue<C>>>,
    /// The numbers of the groups in which something waits.
    occupied: Vec<usize>,
    /// Kept for its memory.
    waiting: Vec<Waiting>,
}

/// What executing a batch taught.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation {
    pub(crate) group: GroupId,
    pub(crate) rows: usize,
    pub(crate) took: Duration,
    pub(crate) done: Instant,
}

impl<C: Content> Queue<C> {
    pub(crate) fn new(aging_interval: Duration, workers: usize, epoch: Instant) -> Self {
        Self {
            aging_interval,
            epoch,
            busy_until: vec![epoch; workers],
            turns: Turns::default(),
            offered: Offered::new(epoch),
            with_deadline: [0; Priority::COUNT],
            groups: Vec::new(),
            occupied: Vec::new(),
            waiting: Vec::new(),
        }
    }

    pub(crate) fn learn(&mut self, seen: Observation) {
        self.group(seen.group).learn(seen.rows, seen.took, seen.done);
    }

    pub(crate) fn insert(&mut self, entry: Entry<C>) {
        let index = entry.group.index();
        self.with_deadline[entry.priority.lane()] += u64::from(entry.deadline.is_some());
        let group = self.group(entry.group);
        let was_empty = group.len() == 0;
        let (lane, nanos) = (entry.priority, group.nanos(entry.rows));
        group.insert(entry);
        if was_empty {
            self.occupied.push(index);
        }
        self.offered.add(lane, nanos);
    }

    /// [Tends](Self::tend), and decides.
    pub(crate) fn plan(
        &mut self,
        now: Instant,
        circumstances: &Circumstances,
        live: usize,
        removed: &mut Removed<C>,
    ) -> Decision {
        self.tend(now, live, removed);
        self.waiting.clear();
        let (groups, waiting, turns) = (&mut self.groups, &mut self.waiting, &self.turns);
        waiting.extend(self.occupied.iter().filter_map(|&index| groups[index].as_mut()?.summary(now, turns)));
        let decision = decide(now, &self.waiting, circumstances);
        if let Decision::Wait(terms) = decision {
            for &index in &self.occupied {
                if let Some(group) = groups[index].as_mut() {
                    group.hold_back(terms.until);
                }
            }
        }
        decision
    }

    /// Ages, and takes out what is hopeless. `live` is how many requests are known not to be withdrawn.
    pub(crate) fn tend(&mut self, now: Instant, live: usize, removed: &mut Removed<C>) {
        let crowded = self.len() > 2 * live + SLACK;
        let groups = &mut self.groups;
        self.occupied.retain(|&index| {
            let Some(group) = groups[index].as_mut() else { return false };
            if crowded {
                group.sweep(removed);
            }
            group.age(now);
            group.refuse(now, removed);
            group.len() > 0
        });
    }

    /// When, at the latest, something that waits will have become hopeless if nobody takes it; none without deadlines.
    pub(crate) fn next_hopeless(&mut self, now: Instant) -> Option<Instant> {
        let (groups, occupied) = (&mut self.groups, &self.occupied);
        occupied.iter().filter_map(|&index| groups[index].as_mut()?.next_hopeless(now)).min()
    }

    /// What to watch for while every worker executes. What comes meanwhile is unknown, so where deadlines are in use
    /// and none waits, it is soon looked at.
    pub(crate) fn watch(&mut self, now: Instant) -> Watch {
        let until = self.next_hopeless(now);
        let costliest = self.groups.iter().flatten().map(|group| group.largest_bound(now)).max();
        Watch { until, due_before: until.map(|until| until + costliest.unwrap_or_default()) }
    }

    /// Takes the group's next batch.
    pub(crate) fn take(
        &mut self,
        group: GroupId,
        now: Instant,
        batch: &mut Vec<Item<C::Claimed>>,
        removed: &mut Removed<C>,
    ) {
        if let Some(Some(queue)) = self.groups.get_mut(group.index()) {
            queue.take(now, &mut self.turns, batch, removed);
        }
    }

    /// Takes note that a worker executes a batch of `rows` from now on.
    pub(crate) fn occupy(&mut self, worker: usize, group: GroupId, rows: usize, now: Instant) {
        self.busy_until[worker] = now + self.group(group).mean(rows);
    }

    /// Takes note that a worker executes nothing.
    pub(crate) fn vacate(&mut self, worker: usize) {
        self.busy_until[worker] = self.epoch;
    }

    /// When each worker's batch should be done.
    pub(crate) fn busy_until(&self) -> &[Instant] {
        &self.busy_until
    }

    /// Tells submitters what lies ahead of them.
    pub(crate) fn publish(&mut self, now: Instant, forecast: &Forecast) {
        if self.with_deadline == [0; Priority::COUNT] {
            return;
        }
        self.offered.update(now, self.busy_until.len());
        let mut ahead = Ahead::new();
        let (mut nanos, mut len) = (0, 0);
        for group in self.occupied.iter().filter_map(|&index| self.groups[index].as_ref()) {
            nanos += group.publish(now, forecast, &mut ahead);
            len += group.len() as u64;
        }
        forecast.publish(&Outlook {
            now,
            free_at: self.busy_until.iter().copied().min().unwrap_or(now),
            ahead,
            stretch: self.offered.stretch(),
            per_request: nanos.checked_div(len),
            counted: self.with_deadline,
        });
    }

    /// How many requests are in order, the withdrawn that have not been noticed yet included.
    pub(crate) fn len(&self) -> usize {
        self.occupied.iter().filter_map(|&index| self.groups[index].as_ref()).map(GroupQueue::len).sum()
    }

    /// Takes out everything.
    pub(crate) fn clear(&mut self) -> Vec<Entry<C>> {
        self.occupied.clear();
        self.groups.iter_mut().flatten().flat_map(GroupQueue::clear).collect()
    }

    fn group(&mut self, id: GroupId) -> &mut GroupQueue<C> {
        let index = id.index();
        if self.groups.len() <= index {
            self.groups.resize_with(index + 1, || None);
        }
        self.groups[index].get_or_insert_with(|| GroupQueue::new(id, self.aging_interval, self.epoch))
    }
}
