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
    /// Share of the time in which it ran a kernel, in percent.
    pub utilization_percent: f64,
    /// Memory in use, in bytes.
    pub memory_used_bytes: u64,
    /// Memory it has, in bytes.
    pub memory_total_bytes: u64,
    /// Temperature in degrees Celsius.
    pub temperature_celsius: f64,
    /// Power drawn, in watts.
    pub power_watts: f64,
}

/// Handles on the series of one GPU. Register it only where there is one: a series at zero reads as an idle GPU.
#[derive(Debug)]
pub struct GpuMetrics {
    utilization: Gauge,
    memory_used: Gauge,
    memory_total: Gauge,
    temperature: Gauge,
    power: Gauge,
}

impl GpuMetrics {
    /// Handles for the GPU of this name, such as `cuda:0`, with the recorder in force.
    #[must_use]
    pub fn register(device: &str) -> Self {
        let gauge = |metric: names::Metric| metric.gauge(&[device]);
        Self {
            utilization: gauge(names::GPU_UTILIZATION),
            memory_used: gauge(names::GPU_MEMORY_USED),
            memory_total: gauge(names::GPU_MEMORY_TOTAL),
            temperature: gauge(names::GPU_TEMPERATURE),
            power: gauge(names::GPU_POWER),
        }
    }

    /// Publishes what the GPU said.
    pub fn publish(&self, reading: GpuReading) {
        self.utilization.set(reading.utilization_percent);
        self.memory_used.set(reading.memory_used_bytes as f64);
        self.memory_total.set(reading.memory_total_bytes as f64);
        self.temperature.set(reading.temperature_celsius);
        self.power.set(reading.power_watts);
    }
}
