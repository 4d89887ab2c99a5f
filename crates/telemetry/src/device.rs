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

/// What a GPU reports of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GpuReading {
    /// Share of the time in which it ran a kernel, in percent, if it tells.
    pub utilization_percent: Option<f64>,
    /// Memory in use, in bytes.
    pub memory_used_bytes: u64,
    /// Memory it has, in bytes.
    pub memory_total_bytes: u64,
    /// Temperature in degrees Celsius, if it tells.
    pub temperature_celsius: Option<f64>,
    /// Power drawn, in watts, if it tells.
    pub power_watts: Option<f64>,
}

/// The series of one GPU. Each begins with the first reading that has it: a series at zero reads as an idle GPU.
#[derive(Debug)]
pub struct GpuMetrics {
    device: String,
}

impl GpuMetrics {
    /// For the GPU of this name, such as `cuda:0`.
    #[must_use]
    pub fn of(device: impl Into<String>) -> Self {
        Self { device: device.into() }
    }

    /// Publishes what the GPU said, with the recorder in force.
    pub fn publish(&self, reading: GpuReading) {
        let set = |metric: names::Metric, value: Option<f64>| {
            if let Some(value) = value {
                metric.gauge(&[&self.device]).set(value);
            }
        };
        set(names::GPU_UTILIZATION, reading.utilization_percent);
        set(names::GPU_MEMORY_USED, Some(reading.memory_used_bytes as f64));
        set(names::GPU_MEMORY_TOTAL, Some(reading.memory_total_bytes as f64));
        set(names::GPU_TEMPERATURE, reading.temperature_celsius);
        set(names::GPU_POWER, reading.power_watts);
    }
}
