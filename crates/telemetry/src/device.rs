//! What is recorded of a device's queue.

use crate::lane::{Lane, PerLane};
use crate::names;
use metrics::Gauge;

/// Handles on the series of one device's scheduler.
#[derive(Debug)]
pub struct DeviceMetrics {
    depth: PerLane<Gauge>,
}

impl DeviceMetrics {
    /// Handles for the device of this name, such as `cpu` or `cuda:0`, with the recorder in force.
    #[must_use]
    pub fn register(device: &str) -> Self {
        Self { depth: PerLane::new(|lane| names::QUEUE_DEPTH.gauge(&[device, lane.as_str()])) }
    }

    /// How many requests wait in `lane` now.
    pub fn set_queue_depth(&self, lane: Lane, requests: u32) {
        self.depth.of(lane).set(requests);
    }
}
