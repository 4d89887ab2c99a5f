//! Everything that waits, in the leader's hands: the only place that both arrivals and decisions touch.

use std::time::{Duration, Instant};

use crate::entry::{Entry, Item, Removed};
use crate::group_queue::GroupQueue;
use crate::policy::{Circumstances, Decision, Waiting, decide};
use crate::ring::Consumer;
use crate::{GroupId, Priority};

#[cfg(all(test, not(loom)))]
mod oracle;

/// How many withdrawn requests may linger, beside as many as there are live ones, before they are swept out.
const SLACK: usize = 64;

/// The consuming ends of the rings, and what was taken from them, by group.
pub(crate) struct Queue<T, R> {
    lanes: [Consumer<Entry<T, R>>; Priority::COUNT],
    lane_capacity: usize,
    observations: Consumer<Observation>,
    aging_interval: Duration,
    /// By the group's number; made when its first request comes.
    groups: Vec<Option<GroupQueue<T, R>>>,
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

impl<T, R> Queue<T, R> {
    pub(crate) fn new(
        lanes: [Consumer<Entry<T, R>>; Priority::COUNT],
        lane_capacity: usize,
        observations: Consumer<Observation>,
        aging_interval: Duration,
    ) -> Self {
        Self {
            lanes,
            lane_capacity,
            observations,
            aging_interval,
            groups: Vec::new(),
            occupied: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Moves what arrived in the lanes of `arrivals` (a bit each) into order. At most a lane's capacity from each: what
    /// comes meanwhile sets its bit again.
    pub(crate) fn drain(&mut self, arrivals: usize) {
        while let Some(seen) = self.observations.pop() {
            self.group(seen.group).learn(seen.rows, seen.took, seen.done);
        }
        for lane in 0..Priority::COUNT {
            if arrivals & 1 << lane == 0 {
                continue;
            }
            for _ in 0..self.lane_capacity {
                let Some(entry) = self.lanes[lane].pop() else { break };
                self.insert(entry);
            }
        }
    }

    pub(crate) fn insert(&mut self, entry: Entry<T, R>) {
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
        removed: &mut Removed<T, R>,
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
                group.summary()
            });
            waiting.extend(summary);
            summary.is_some()
        });
        decide(now, &self.waiting, circumstances)
    }

    /// Takes the group's next batch.
    pub(crate) fn take(
        &mut self,
        group: GroupId,
        now: Instant,
        batch: &mut Vec<Item<T, R>>,
        removed: &mut Removed<T, R>,
    ) {
        self.group(group).take(now, batch, removed);
    }

    /// How many requests are in order, the withdrawn that have not been noticed yet included.
    pub(crate) fn len(&self) -> usize {
        self.occupied.iter().filter_map(|&index| self.groups[index].as_ref()).map(GroupQueue::len).sum()
    }

    /// Takes out everything, from the rings as well.
    pub(crate) fn clear(&mut self) -> Vec<Entry<T, R>> {
        let mut entries = Vec::new();
        for lane in &mut self.lanes {
            entries.extend(std::iter::from_fn(|| lane.pop()));
        }
        for group in self.groups.iter_mut().flatten() {
            entries.extend(group.clear());
        }
        self.occupied.clear();
        entries
    }

    fn group(&mut self, id: GroupId) -> &mut GroupQueue<T, R> {
        let index = id.index();
        if self.groups.len() <= index {
            self.groups.resize_with(index + 1, || None);
        }
        self.groups[index].get_or_insert_with(|| GroupQueue::new(id, self.aging_interval))
    }
}
