//! What happens to requests that leave the queue.

use std::time::Instant;

use crate::batch::{Settlement, settle_one};
use crate::core::Core;
use crate::delivery::{Delivery, contain};
use crate::entry::{Claimed, Removed, Taken, Ticketed};
use crate::{Failure, Priority};

/// Gives back the places of requests that were taken.
pub(crate) fn release<T, R>(core: &Core, items: &[Taken<T, R>]) {
    let mut taken = [0; Priority::COUNT];
    for item in items {
        taken[item.lane.lane()] += 1;
        core.admission.leave_tenant(item.tenant);
    }
    for (lane, n) in Priority::ALL.into_iter().zip(taken) {
        core.release_lane(lane, n);
    }
}

/// Tells those whose deadline cannot be met, and lets go of what was withdrawn.
pub(crate) fn dismiss<T, R>(core: &Core, removed: &mut Removed<Ticketed<T, R>>, now: Instant, delivery: &mut Delivery) {
    release(core, &removed.hopeless);
    for item in removed.hopeless.drain(..) {
        let settlement = Settlement { result: Err(Failure::DeadlineExceeded), batch: None };
        let Claimed { payload, handoff, owed } = item.content;
        settle_one(owed, handoff, settlement, now, delivery);
        contain(|| drop(payload));
    }
    for payload in removed.withdrawn.drain(..) {
        contain(|| drop(payload));
    }
    delivery.send();
}
