//! The consuming ends of the rings: what arrived, on its way into the queue.

use crate::Priority;
use crate::entry::{Content, Entry};
use crate::queue::{Observation, Queue};
use crate::ring::Consumer;

/// What only the leader touches: the ends of the rings, and the queue that they fill.
pub(crate) struct Intake<C> {
    lanes: [Consumer<Entry<C>>; Priority::COUNT],
    observations: Consumer<Observation>,
    pub(crate) queue: Queue<C>,
}

impl<C: Content> Intake<C> {
    pub(crate) const fn new(
        lanes: [Consumer<Entry<C>>; Priority::COUNT],
        observations: Consumer<Observation>,
        queue: Queue<C>,
    ) -> Self {
        Self { lanes, observations, queue }
    }

    /// Moves what arrived in the lanes of `arrivals` (a bit each) into order. At most a ringful from each, which is all
    /// that was there: what comes meanwhile sets its bit again.
    pub(crate) fn drain(&mut self, arrivals: usize) {
        while let Some(seen) = self.observations.pop() {
            self.queue.learn(seen);
        }
        for lane in 0..Priority::COUNT {
            if arrivals & 1 << lane == 0 {
                continue;
            }
            for _ in 0..self.lanes[lane].capacity() {
                let Some(entry) = self.lanes[lane].pop() else { break };
                self.queue.insert(entry);
            }
        }
    }

    /// Takes out everything, from the rings as well.
    pub(crate) fn clear(&mut self) -> Vec<Entry<C>> {
        let mut entries = Vec::new();
        for lane in &mut self.lanes {
            entries.extend(std::iter::from_fn(|| lane.pop()));
        }
        entries.extend(self.queue.clear());
        entries
    }
}
