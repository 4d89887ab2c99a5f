//! The server's life: start, serve, drain.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use socket2::SockRef;
use tokio::sync::watch;
use volley_gpu_runtime::{Library, ModelOptions, ProviderPreference};
use volley_scheduler::Scheduler;
use volley_telemetry::logs::Filter;
use volley_telemetry::{EdgeMetrics, Exporter};

use crate::access::Tenants;
use crate::catalog::{Catalog, Changes, Loader, repository_path};
use crate::config::{Config, RuntimeConfig, Settings};
use crate::descriptors;
use crate::engine::{DeviceScheduler, Pinning, Workers};
use crate::gauges::Gauges;
use crate::http::{BACKLOG, Edge, Gate, IoThreads, Phase, serve_admin, serve_metrics};
use crate::memory;
use crate::pipeline::Pipeline;
use crate::reach::Reach;
use crate::reread::Reread;
use crate::results::Results;
use crate::tls::Tls;
use crate::updates::Updates;
use crate::warming::Warming;

/// Longest time to write the last results in, to Redis and to the snapshot, after everything was answered.
const LAST_WRITES: Duration = Duration::from_secs(1);
/// How often what must be done now and then is looked at.
const UPKEEP: Duration = Duration::from_secs(1);

/// A running server. It serves until [`Server::shut_down`].
#[derive(Debug)]
pub struct Server {
    config: Arc<Config>,
    http_address: SocketAddr,
    grpc_address: SocketAddr,
    metrics_address: SocketAddr,
    phase: watch::Sender<Phase>,
    io: IoThreads,
    workers: Workers,
    scheduler: DeviceScheduler,
    metrics_listener: TcpListener,
    admin_listener: TcpListener,
    admin_address: SocketAddr,
    edge: Arc<Edge>,
    updates: Arc<Updates>,
    tls: Vec<Arc<Tls>>,
    gauges: Arc<Gauges>,
    results: Option<Results>,
    warming: Warming,
}

impl Server {
    /// Loads the models, warms them up, and starts to serve. When this returns, the server is ready. `log` is what changes
    /// the process's log filter, from [`LogConfig::start`](crate::LogConfig::start); without it `log.filter` changes nothing.
    ///
    /// # Errors
    /// [`StartError`] says what could not be had: a port, a certificate, the ONNX Runtime library, a model.
    pub fn start(settings: Settings, log: Option<Filter>) -> Result<Self, StartError> {
        let config = Arc::clone(settings.config());
        let started = Instant::now();
        // Ports first: they are what most often goes wrong, and cost nothing to find out.
        let [http_listener, grpc_listener, metrics_listener, admin_listener] = bind_all([
            ("http", config.http.host, config.http.port),
            ("grpc", config.grpc.host, config.grpc.port),
            ("metrics", config.metrics.host, config.metrics.port),
            ("admin", config.admin.host, config.admin.port),
        ])?;
        let (http_address, grpc_address) = (local(&http_listener)?, local(&grpc_listener)?);
        let (metrics_address, admin_address) = (local(&metrics_listener)?, local(&admin_listener)?);
        let tls = Tls::open(&config.tls, b"http/1.1").map_err(StartError::other)?;
        let grpc_tls = Tls::open(&config.tls, b"h2").map_err(StartError::other)?;
        let connections = config.limits.connections.get() as u64;
        if let Some(files) = descriptors::raise_limit().filter(|&files| files < connections) {
            tracing::warn!(files, connections, "the system allows fewer open files than limits.connections");
        }
        let exporter = Exporter::install().map_err(StartError::other)?;

        let library = Library::load(config.runtime.library.as_deref()).map_err(StartError::other)?;
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let worker_count = config.runtime.workers.unwrap_or(NonZeroUsize::new(cores).unwrap_or(NonZeroUsize::MIN));
        let scheduler_config = volley_scheduler::Config {
            lane_capacity: config.scheduler.lane_capacity,
            max_wait: config.scheduler.max_wait,
            aging_interval: config.scheduler.aging_interval,
            ..Default::default()
        };
        let (scheduler, workers) = Scheduler::new(scheduler_config, worker_count);
        let (results, keyer) = Results::open(&config.cache).map_err(StartError::other)?;
        let loader = Loader {
            repository: repository_path(config.model_repository.as_deref()).map_err(StartError)?,
            configured: ArcSwap::from_pointee(config.models.clone()),
            options: model_options(&config.runtime).map_err(StartError)?,
            library,
            scheduler: scheduler.clone(),
            workers: worker_count,
            keyer,
            results: results.clone(),
        };
        // A model's own threads would keep their maker's priority.
        let one_thread = config.runtime.intra_op_threads.get() == 1 && config.runtime.inter_op_threads.get() == 1;
        let changes = Changes::start(one_thread).map_err(StartError::other)?;
        let catalog = Arc::new(Catalog::load(loader, changes).map_err(StartError::other)?);
        memory::give_back();
        let pinning = Pinning(config.runtime.cpu_affinity.clone());
        let workers = Workers::start(&scheduler, workers, &catalog, pinning, config.runtime.run_limit);

        let tenants = Tenants::of(scheduler.clone());
        let updates = Arc::new(Updates::new(settings, tenants, Arc::clone(&catalog), log));
        let pipeline = Arc::new(Pipeline {
            catalog,
            scheduler: scheduler.clone(),
            results: results.clone(),
            rejections: EdgeMetrics::register(),
        });
        let warming = Warming::start(&config.cache, &pipeline).map_err(StartError::other)?;
        let reach = Reach::new(config.cache.redis.max_staleness);
        let gauges = Arc::new(Gauges::register(exporter, Arc::clone(&pipeline), config.runtime.device, reach));
        let (phase, phase_seen) = watch::channel(Phase::Serving);
        let gate = Arc::new(Gate::new(updates.in_force(), tls.clone()));
        let grpc_gate = Arc::new(gate.beside(grpc_tls.clone()));
        let edge = Arc::new(Edge { pipeline, gate, grpc_gate, phase: phase_seen });
        let io_count = config.http.threads.map_or((cores / 8).max(1), NonZeroUsize::get);
        let io = IoThreads::start(io_count, &http_listener, &grpc_listener, &edge)
            .map_err(|error| StartError(format!("the HTTP threads could not be started: {error}")))?;
        tracing::info!(
            http = %http_address,
            grpc = %grpc_address,
            metrics = %metrics_address,
            admin = %admin_address,
            workers = worker_count,
            startup_ms = started.elapsed().as_millis() as u64,
            "ready"
        );
        Ok(Self {
            config,
            http_address,
            grpc_address,
            metrics_address,
            phase,
            io,
            workers,
            scheduler,
            metrics_listener,
            admin_listener,
            admin_address,
            edge,
            updates,
            tls: tls.into_iter().chain(grpc_tls).collect(),
            gauges,
            results,
            warming,
        })
    }

    /// Where inference requests are answered over HTTP.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where they are answered over gRPC.
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where `/metrics` is answered.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Where operators are answered.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// What reads the configuration and the certificates again.
    #[must_use]
    pub fn reread(&self) -> Reread {
        Reread::of(Arc::clone(&self.updates), self.tls.clone())
    }

    /// Answers `/metrics` and operators, watches the configuration's files and keeps gauges up to date until `stop` completes; then leaves as [`Server::shut_down`] does.
    ///
    /// # Errors
    /// When the metrics listener fails, or not everything accepted was answered within the grace period.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let gauges = Arc::clone(&self.gauges);
        let gate = Arc::new(self.edge.gate.apart());
        let metrics = serve_metrics(self.metrics_listener.try_clone()?, Arc::clone(&gate), Arc::clone(&gauges));
        let (edge, updates) = (Arc::clone(&self.edge), Arc::clone(&self.updates));
        let admin = serve_admin(self.admin_listener.try_clone()?, gate, edge, updates);
        let reread = self.reread();
        let upkeep = async {
            let mut interval = tokio::time::interval(UPKEEP);
            loop {
                interval.tick().await;
                gauges.upkeep();
            }
        };
        let watched = async {
            tokio::select! {
                result = metrics => result,
                result = admin => result,
                () = reread.when_files_change() => Ok(()),
                () = upkeep => Ok(()),
            }
        };
        tokio::pin!(watched);
        tokio::select! {
            result = &mut watched => result?,
            () = stop => {}
        }
        // Metrics are answered until the end: how a server leaves is worth watching.
        let results = self.results.clone();
        let leaving = async {
            let left = tokio::task::spawn_blocking(|| self.shut_down()).await;
            if let Some(results) = results {
                let unwritten = results.close(LAST_WRITES).await;
                if unwritten > 0 {
                    tracing::warn!(unwritten, "results were not written to Redis in time");
                }
            }
            left.map_err(io::Error::other)?
        };
        tokio::select! {
            left = leaving => left,
            result = watched => result,
        }
    }

    /// Stops accepting, answers everything that was accepted, and ends.
    ///
    /// # Errors
    /// When the grace period ended before everything was answered.
    pub fn shut_down(mut self) -> io::Result<()> {
        let started = Instant::now();
        let deadline = started + self.config.shutdown.grace;
        tracing::info!(grace = ?self.config.shutdown.grace, "shutting down");
        self.phase.send_replace(Phase::Draining);
        self.warming.stop();
        // Half of the time at least is left to finish in.
        thread::sleep(self.config.shutdown.linger.min(self.config.shutdown.grace / 2));
        self.phase.send_replace(Phase::Closing);
        let busy = self.io.join_until(deadline);
        self.scheduler.close();
        self.warming.finish_until(deadline.max(Instant::now() + LAST_WRITES));
        if busy > 0 {
            let text = format!("requests were still open after the grace period of {:?}", self.config.shutdown.grace);
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        self.workers.join();
        tracing::info!(after_ms = started.elapsed().as_millis() as u64, "everything accepted was answered; bye");
        Ok(())
    }
}

/// How every model is run, unless its own configuration says otherwise.
fn model_options(config: &RuntimeConfig) -> Result<ModelOptions, String> {
    Ok(ModelOptions {
        intra_op_threads: config.intra_op_threads,
        inter_op_threads: config.inter_op_threads,
        spinning: config.spinning,
        gpu_memory_limit: config.gpu_memory_limit,
        providers: ProviderPreference::of_names(&config.providers, config.require, config.device)
            .map_err(|error| format!("runtime.providers: {error}"))?,
        ..ModelOptions::default()
    })
}

/// Listens on all of these addresses, each of a section of the configuration; or says of all that cannot be had.
fn bind_all<const N: usize>(wanted: [(&str, IpAddr, u16); N]) -> Result<[TcpListener; N], StartError> {
    let mut failures = Vec::new();
    let listeners =
        wanted.map(|(section, host, port)| bind(section, host, port).map_err(|failure| failures.push(failure.0)).ok());
    match &failures[..] {
        [] => Ok(listeners.map(|listener| listener.expect("none failed"))),
        [only] => Err(StartError(only.clone())),
        several => Err(StartError(format!("{} ports cannot be had:\n  {}", several.len(), several.join("\n  ")))),
    }
}

fn bind(section: &str, host: IpAddr, port: u16) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind((host, port)).and_then(|listener| {
        // Bound, it listens with the standard library's own, smaller number.
        SockRef::from(&listener).listen(BACKLOG)?;
        Ok(listener)
    });
    bound.map_err(|error| {
        StartError(format!(
            "{section}.port: cannot listen on {host}:{port}: {error}; choose another with --{section}-port"
        ))
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(StartError::other)
}

/// Why the server could not start, in words for its operator.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    fn other(error: impl std::error::Error) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    #[test]
    fn all_ports_that_are_taken_are_told_at_once() {
        let host = Ipv4Addr::LOCALHOST.into();
        let [one, other] = bind_all([("http", host, 0), ("grpc", host, 0)]).expect("free ports");
        let [one, other] = [one, other].map(|listener| (local(&listener).expect("its address").port(), listener));
        let wanted = [("http", host, one.0), ("grpc", host, 0), ("admin", host, other.0)];
        let told = bind_all(wanted).expect_err("two are taken").to_string();
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 3, "{told}");
        assert!(lines[1].contains("http.port") && lines[1].ends_with("--http-port"), "{told}");
        assert!(lines[2].contains("admin.port") && lines[2].contains(&other.0.to_string()), "{told}");
        let told = bind_all([("http", host, one.0), ("grpc", host, 0)]).expect_err("one is taken").to_string();
        assert!(told.starts_with("http.port: ") && told.lines().count() == 1, "{told}");
    }

    #[test]
    fn hundreds_connect_at_once_before_any_is_accepted() {
        let listener = bind("http", Ipv4Addr::LOCALHOST.into(), 0).expect("a free port");
        let address = local(&listener).expect("its address");
        // Below what systems allow by themselves. One too many would wait for as long as nobody is accepted.
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(10));
        let connected: Vec<_> = (0..400).map(connect).collect::<Result<_, _>>().expect("a place for each");
        assert_eq!(connected.len(), 400);
    }
}
