//! The Prometheus exposition of what is recorded.

use crate::names::{self, Kind};
use metrics::Recorder;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::time::Duration;

/// How often to call [`Exporter::upkeep`] while nobody scrapes. At a hundred thousand requests a second the samples
/// that wait for it then take a few megabytes.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The value of a gauge whose subject is gone: the exposition leaves it out, where 0 would say that something is wrong.
pub(crate) const GONE: f64 = f64::NAN;

/// Renders what was recorded, as the text that Prometheus scrapes. Clones share the same record.
#[derive(Debug, Clone)]
pub struct Exporter(PrometheusHandle);

/// Another recorder was installed in this process before.
#[derive(Debug, thiserror::Error)]
#[error(
    "a metrics recorder is already installed in this process; install one, once, before the first metric is registered"
)]
pub struct InstallError(#[source] metrics::SetRecorderError<PrometheusRecorder>);

impl Exporter {
    /// Records for the whole process from now on. Handles that were registered before stay without effect.
    ///
    /// # Errors
    ///
    /// If the process has a recorder already.
    pub fn install() -> Result<Self, InstallError> {
        let (recorder, exporter) = configured();
        metrics::set_global_recorder(recorder).map_err(InstallError)?;
        names::describe_all();
        Ok(exporter)
    }

    /// A recorder that is not the process's, and its exporter: for tests, and for a program that keeps a record apart.
    /// Use it through [`metrics::with_local_recorder`].
    #[must_use]
    pub fn apart() -> (impl Recorder + 'static, Self) {
        let (recorder, exporter) = configured();
        metrics::with_local_recorder(&recorder, names::describe_all);
        (recorder, exporter)
    }

    /// The exposition, in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let text = self.0.render();
        if !text.contains(" NaN\n") {
            return text;
        }
        text.split_inclusive('\n').filter(|line| !line.ends_with(" NaN\n")).collect()
    }

    /// Sorts the samples of histograms into their buckets. Until then, or until the next [`render`](Self::render), each
    /// sample is kept by itself: without either, memory grows with every request.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

fn configured() -> (PrometheusRecorder, Exporter) {
    let builder = names::ALL.iter().fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
        Kind::Histogram(edges) => builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), edges)
            .expect("every histogram declares edges"),
        Kind::Counter | Kind::Gauge => builder,
    });
    let recorder = builder.build_recorder();
    let exporter = Exporter(recorder.handle());
    (recorder, exporter)
}
