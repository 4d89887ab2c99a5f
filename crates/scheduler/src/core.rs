//! What tickets share with the scheduler, whatever the payload.

use std::num::NonZeroUsize;
use std::time::Instant;

use crate::Priority;
use crate::control::Control;
use crate::gate::Gate;
use crate::sync::Unparker;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) gate: Gate,
    pub(crate) control: Control,
}

impl Core {
    pub(crate) fn new(lane_capacity: NonZeroUsize, unparkers: Box<[Unparker]>) -> Self {
        Self { gate: Gate::new(lane_capacity), control: Control::new(unparkers, Instant::now()) }
    }

    /// Gives back the places of `n` requests that are queued no longer.
    pub(crate) fn release(&self, lane: Priority, n: usize) {
        if n > 0 && self.gate.leave(lane, n) {
            self.control.nudge();
        }
    }

    pub(crate) fn close(&self) {
        self.gate.close();
        self.control.nudge();
    }
}
