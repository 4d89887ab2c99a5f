//! How many requests each lane holds, and whether it takes more.

use std::num::NonZeroUsize;

use crossbeam::utils::CachePadded;

use crate::Priority;
use crate::sync::{AtomicUsize, Ordering};

/// The top bit of a lane's word: the lane takes nothing more.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// One count per lane of what was accepted and not yet taken, expired or withdrawn, wherever it lies: in the ring
/// or in the leader's structure. Counting both is what bounds memory.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Written by submitters (`enter`), by whoever claims or withdraws (`leave`) and by `close`. Count and closed
    /// bit share the word, so that no request enters after the lane was seen closed and empty; no other memory is
    /// published through it, hence `Relaxed` wherever a value alone is wanted.
    lanes: [CachePadded<AtomicUsize>; Priority::COUNT],
    capacity: usize,
}

/// Why a lane did not let a request in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Closed,
}

impl Gate {
    pub(crate) fn new(capacity: NonZeroUsize) -> Self {
        Self { lanes: std::array::from_fn(|_| CachePadded::new(AtomicUsize::new(0))), capacity: capacity.get() }
    }

    /// Counts one request in. Exact: the lane never holds more than its capacity, nor refuses below it.
    pub(crate) fn enter(&self, lane: Priority) -> Result<(), Refusal> {
        let count = &self.lanes[lane.lane()];
        let mut seen = count.load(Ordering::Relaxed);
        loop {
            if seen & CLOSED != 0 {
                return Err(Refusal::Closed);
            }
            if seen >= self.capacity {
                return Err(Refusal::Full);
            }
            match count.compare_exchange_weak(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// Counts `n` requests out. True if that left a closed lane empty, which whoever waits for the end must hear.
    #[must_use]
    pub(crate) fn leave(&self, lane: Priority, n: usize) -> bool {
        // Release, for `is_drained`: who sees the lane empty also sees what its last request left behind.
        self.lanes[lane.lane()].fetch_sub(n, Ordering::Release) == CLOSED | n
    }

    /// Lets nothing more in.
    pub(crate) fn close(&self) {
        for lane in &self.lanes {
            lane.fetch_or(CLOSED, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lanes.iter().all(|lane| lane.load(Ordering::Relaxed) & CLOSED != 0)
    }

    /// Closed and empty, which it then stays: a closed lane only ever loses requests.
    pub(crate) fn is_drained(&self) -> bool {
        self.lanes.iter().all(|lane| lane.load(Ordering::Acquire) == CLOSED)
    }

    pub(crate) fn depth(&self) -> [usize; Priority::COUNT] {
        std::array::from_fn(|lane| self.lanes[lane].load(Ordering::Relaxed) & !CLOSED)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn gate(capacity: usize) -> Gate {
        Gate::new(NonZeroUsize::new(capacity).expect("positive"))
    }

    #[test]
    fn a_lane_refuses_beyond_its_capacity_and_accepts_again_below_it() {
        let gate = gate(2);
        assert_eq!(gate.enter(Priority::Low), Ok(()));
        assert_eq!(gate.enter(Priority::Low), Ok(()));
        assert_eq!(gate.enter(Priority::Low), Err(Refusal::Full));
        assert_eq!(gate.enter(Priority::High), Ok(()));
        assert!(!gate.leave(Priority::Low, 1));
        assert_eq!(gate.enter(Priority::Low), Ok(()));
        assert_eq!(gate.depth(), [0, 1, 0, 2]);
    }

    #[test]
    fn the_last_to_leave_a_closed_lane_is_told_so() {
        let gate = gate(4);
        assert_eq!(gate.enter(Priority::Normal), Ok(()));
        assert_eq!(gate.enter(Priority::Normal), Ok(()));
        gate.close();
        assert_eq!(gate.enter(Priority::Normal), Err(Refusal::Closed));
        assert!(!gate.leave(Priority::Normal, 1));
        assert!(!gate.is_drained());
        assert!(gate.leave(Priority::Normal, 1));
        assert!(gate.is_drained());
    }
}
