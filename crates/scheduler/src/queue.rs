//! Everything that waits, in the leader's hands: the only place that both arrivals and decisions touch.

use std::time::{Duration, Instant};

use crate::GroupId;
use crate::entry::{Content, Entry, Item, Removed};
use crate::group_queue::GroupQueue;
use crate::policy::{Circumstances, Decision, Waiting, decide};

#[cfg(all(test, not(loom)))]
mod oracle;

/// How many withdrawn requests may linger, beside as many as there are live ones, before they are swept out.
const SLACK: usize = 64;

/// What waits, by group.
pub(crate) struct Queue<C> {
    aging_interval: Duration,
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
    pub(crate) const fn new(aging_interval: Duration) -> Self {
        Self { aging_interval, groups: Vec::new(), occupied: Vec::new(), waiting: Vec::new() }
    }

    pub(crate) fn learn(&mut self, seen: Observation) {
        self.group(seen.group).learn(seen.rows, seen.took, seen.done);
    }

    pub(crate) fn insert(&mut self, entry: Entry<C>) {
        let index = entry.group.index();
        let group = self.group(entry.group);
        let was_empty = group.len() == 0;
        group.insert(entry);
        if was_empty {
            self.occupied.push(index);
        }
    }

    /// Ages, refuses what is hopeless, and decides. `live` is how many requests are known not to be withdrawn.
    pub(crate) fn plan(
        &mut self,
        now: Instant,
        circumstances: &Circumstances,
        live: usize,
        removed: &mut Removed<C>,
    ) -> Decision {
        let crowded = self.len() > 2 * live + SLACK;
        self.waiting.clear();
        let (groups, waiting) = (&mut self.groups, &mut self.waiting);
        self.occupied.retain(|&index| {
            let summary = groups[index].as_mut().and_then(|group| {
                if crowded {
                    group.sweep(removed);
                }
                group.age(now);
                group.refuse(now, removed);
                group.summary(now)
            });
            waiting.extend(summary);
            summary.is_some()
        });
        decide(now, &self.waiting, circumstances)
    }

    /// When, at the latest, something that waits will have become hopeless if nobody takes it; none without deadlines.
    pub(crate) fn next_hopeless(&mut self, now: Instant) -> Option<Instant> {
        let (groups, occupied) = (&mut self.groups, &self.occupied);
        occupied.iter().filter_map(|&index| groups[index].as_mut()?.next_hopeless(now)).min()
    }

    /// Takes the group's next batch.
    pub(crate) fn take(
        &mut self,
        group: GroupId,
        now: Instant,
        batch: &mut Vec<Item<C::Claimed>>,
        removed: &mut Removed<C>,
    ) {
        self.group(group).take(now, batch, removed);
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
        self.groups[index].get_or_insert_with(|| GroupQueue::new(id, self.aging_interval))
    }
}
