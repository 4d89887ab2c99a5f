//! Figures that are read when they are asked for, rather than counted as they happen.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use volley_scheduler::Priority;
use volley_telemetry::host::Host;
use volley_telemetry::{CacheReading, CacheTierMetrics, DeviceMetrics, Exporter};

use crate::catalog::Runs;
use crate::pipeline::{Pipeline, lane};

/// How often the host is sampled: utilisation is the mean since the sample before.
const HOST_INTERVAL: Duration = Duration::from_secs(5);

/// Reads queues, caches and the host into their metrics, and renders all metrics.
#[derive(Debug)]
pub(crate) struct Gauges {
    exporter: Exporter,
    pipeline: Arc<Pipeline>,
    cache: CacheTierMetrics,
    device: DeviceMetrics,
    host: Mutex<(Host, Option<Instant>)>,
}

impl Gauges {
    /// Registers with the recorder in force, and takes a first sample of the host.
    pub(crate) fn register(exporter: Exporter, pipeline: Arc<Pipeline>) -> Self {
        let device = pipeline.catalog.variants().first().map_or("cpu", |variant| variant.provider());
        let gauges = Self {
            cache: CacheTierMetrics::register("local"),
            device: DeviceMetrics::register(device),
            host: Mutex::new((Host::new(), None)),
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

    /// What must be done now and then, scraped or not: histograms are folded, and the host is sampled.
    pub(crate) fn upkeep(&self) {
        self.sample_host();
        self.exporter.upkeep();
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
        if let Some(cache) = &self.pipeline.cache {
            let stats = cache.stats();
            self.cache.publish(CacheReading {
                hits: stats.hits,
                misses: stats.misses,
                shared: stats.shared,
                evictions: stats.evictions,
                expirations: stats.expirations,
                entries: stats.entries,
                bytes: stats.bytes,
            });
        }
        let depth = self.pipeline.scheduler.depth();
        for priority in Priority::ALL {
            let waiting = depth[priority.lane()];
            self.device.set_queue_depth(lane(priority), u32::try_from(waiting).unwrap_or(u32::MAX));
        }
        for variant in self.pipeline.catalog.variants() {
            if let Runs::One(instances) = &variant.runs {
                variant.recovery.set_row_limit(u32::try_from(instances.row_limit()).unwrap_or(u32::MAX));
            }
        }
    }
}
