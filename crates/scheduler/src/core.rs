//! What tickets share with the scheduler, whatever the payload.

use std::num::NonZeroUsize;
use std::time::Instant;

use crate::admission::Admission;
use crate::control::Control;
use crate::sync::Unparker;
use crate::{Priority, TenantId};

pub(crate) struct Core {
    pub(crate) admission: Admission,
    pub(crate) control: Control,
}

impl Core {
    /// `unparkers` are the workers' and, last, the timekeeper's.
    pub(crate) fn new(lane_capacity: NonZeroUsize, workers: usize, unparkers: Box<[Unparker]>) -> Self {
        let epoch = Instant::now();
        Self { admission: Admission::new(lane_capacity, workers, epoch), control: Control::new(unparkers, epoch) }
    }

    /// Gives back the place of a request that is queued no longer.
    pub(crate) fn release(&self, lane: Priority, tenant: Option<TenantId>) {
        if self.admission.leave(lane, tenant) {
            self.control.nudge();
        }
    }

    /// Gives back the lane's places of `n` requests, whose tenants' were given back already.
    pub(crate) fn release_lane(&self, lane: Priority, n: usize) {
        if n > 0 && self.admission.gate.leave(lane, n) {
            self.control.nudge();
        }
    }

    pub(crate) fn close(&self) {
        self.admission.gate.close();
        self.control.nudge();
    }
}
