//! Figures that are read when they are asked for, rather than counted as they happen.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use volley_gpu_runtime::{DeviceMonitor, Provider};
use volley_scheduler::Priority;
use volley_telemetry::host::Host;
use volley_telemetry::{
    CacheTierMetrics, DeviceMetrics, Exporter, GpuMetrics, GpuReading, ModelLabels, SharedCacheMetrics, variant_gone,
};

use crate::catalog::Runs;
use crate::pipeline::{Pipeline, lane};
use crate::reach::Reach;

/// How often the host is sampled: utilisation is the mean since the sample before.
const HOST_INTERVAL: Duration = Duration::from_secs(5);

/// Reads queues, caches and the host into their metrics, and renders all metrics.
#[derive(Debug)]
pub(crate) struct Gauges {
    exporter: Exporter,
    pipeline: Arc<Pipeline>,
    cache: CacheTierMetrics,
    shared_cache: Option<SharedCacheMetrics>,
    device: DeviceMetrics,
    host: Mutex<(Host, Option<Instant>)>,
    gpu: Option<Gpu>,
    reach: Reach,
}

/// A GPU, and where what it says of itself goes.
#[derive(Debug)]
struct Gpu {
    monitor: DeviceMonitor,
    metrics: GpuMetrics,
}

impl Gauges {
    /// Registers with the recorder in force, and takes a first sample of the host.
    ///
    /// `gpu_index` is the GPU's that models run on, if they do on one; `reach` says when Redis is lost.
    pub(crate) fn register(exporter: Exporter, pipeline: Arc<Pipeline>, gpu_index: i32, reach: Reach) -> Self {
        let device = pipeline.catalog.variants().first().map_or("cpu", |variant| variant.provider());
        let gauges = Self {
            cache: CacheTierMetrics::register("local"),
            shared_cache: pipeline
                .results
                .as_ref()
                .and_then(crate::results::Results::shared_reading)
                .map(|_| SharedCacheMetrics::register()),
            device: DeviceMetrics::register(device),
            gpu: Gpu::of(device, gpu_index),
            host: Mutex::new((Host::new(), None)),
            reach,
            exporter,
            pipeline,
        };
        gauges.sample_host();
        gauges
    }

    /// Everything, as Prometheus reads it.
    pub(crate) fn render(&self) -> String {
        self.read();
        self.exporter.render()
    }

    /// What must be done now and then, scraped or not: the host is sampled, models that are gone are forgotten, and it is said
    /// if Redis is lost.
    pub(crate) fn upkeep(&self) {
        self.sample_host();
        if let Some(results) = &self.pipeline.results {
            self.reach.look(results);
        }
        self.exporter.forget_gone(Instant::now());
    }

    fn sample_gpu(&self) {
        let Some(Gpu { monitor, metrics }) = &self.gpu else { return };
        match monitor.sample() {
            Ok(sample) => metrics.publish(GpuReading {
                utilization_percent: sample.utilization_percent,
                memory_used_bytes: sample.memory_used_bytes,
                memory_total_bytes: sample.memory_total_bytes,
                temperature_celsius: sample.temperature_celsius,
                power_watts: sample.power_watts,
            }),
            Err(error) => tracing::warn!(%error, "the GPU could not be asked how it does"),
        }
    }

    fn sample_host(&self) {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if host.1.is_none_or(|before| now.duration_since(before) >= HOST_INTERVAL) {
            host.0.sample(now);
            host.1 = Some(now);
        }
    }

    fn read(&self) {
        if let Some(results) = &self.pipeline.results {
            self.cache.publish(results.reading());
            if let (Some(metrics), Some(reading)) = (&self.shared_cache, results.shared_reading()) {
                metrics.publish(&reading);
            }
        }
        self.sample_gpu();
        let depth = self.pipeline.scheduler.depth();
        for priority in Priority::ALL {
            let waiting = depth[priority.lane()];
            self.device.set_queue_depth(lane(priority), u32::try_from(waiting).unwrap_or(u32::MAX));
        }
        // Of what is served now: one that was replaced, and still fails at its last batches, has the same name.
        let served = self.pipeline.catalog.variants();
        for variant in &served {
            variant.recovery.set_healthy(!variant.is_out());
            if let Runs::One(instances) = &variant.runs {
                variant.recovery.set_row_limit(u32::try_from(instances.row_limit()).unwrap_or(u32::MAX));
            }
        }
        // One may have been unloaded before it was told of here.
        let still = self.pipeline.catalog.variants();
        let gone = |labels: &ModelLabels<'_>| !still.iter().any(|variant| variant.labels() == *labels);
        served.iter().map(|variant| variant.labels()).filter(gone).for_each(variant_gone);
    }
}

impl Gpu {
    /// The GPU number `index`, if models run on one and its driver can be asked.
    fn of(device: &str, index: i32) -> Option<Self> {
        if device == Provider::Cpu.name() {
            return None;
        }
        match DeviceMonitor::open(u32::try_from(index).ok()?) {
            Ok(monitor) => Some(Self { monitor, metrics: GpuMetrics::of(format!("{device}:{index}")) }),
            Err(error) => {
                tracing::warn!(%error, "no metrics of the GPU");
                None
            }
        }
    }
}
