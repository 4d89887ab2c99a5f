//! Ends runs that take too long, and gives up workers that do not come back; has what is out tried, and what rests trimmed.
//!
//! ```text
//! run begins ──── limit ──── half a limit more ────▶ time
//!                   │              │
//!                   │              └ the worker is given up: another takes its place, its thread is left to itself
//!                   └ the run is interrupted: ONNX Runtime ends it before its next operator
//! ```
//!
//! Either way the requests of the batch are tried once more (by the pipeline), on a fresh session. Opening that is part of
//! the batch, cannot be interrupted, and has ten times as long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use volley_gpu_runtime::Interrupter;
use volley_telemetry::Fault;

use super::DeviceScheduler;
use super::workers::Crew;
use crate::catalog::{Runs, ServedVariant};

/// How often a variant that is taken out is tried.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How many times as long as a run the opening of a session may take.
const OPENING: u32 = 10;
/// Sessions that rest for this long give memory back, at twice this long at the latest.
const REST: Duration = Duration::from_secs(10);

/// What each worker runs at the moment. A worker locks its own entry twice a batch, the watchdog now and then.
#[derive(Debug)]
pub(super) struct Watch {
    running: Box<[Mutex<Option<Run>>]>,
    /// The number of the next entry: tells a worker's from its successor's.
    serial: AtomicU64,
}

#[derive(Debug)]
struct Run {
    variant: Arc<ServedVariant>,
    /// None while the session is being opened.
    interrupter: Option<Interrupter>,
    /// When this part of the batch began.
    started: Instant,
    interrupted: bool,
    serial: u64,
}

/// Ends a run's entry when the run ends.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    watch: &'a Watch,
    worker: usize,
    serial: u64,
}

impl Watch {
    pub(super) fn new(workers: usize) -> Self {
        Self { running: (0..workers).map(|_| Mutex::new(None)).collect(), serial: AtomicU64::new(0) }
    }

    /// `worker` is about to take its session of `variant`, which may have to be opened.
    pub(super) fn begin(&self, worker: usize, variant: &Arc<ServedVariant>) -> Watched<'_> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let variant = Arc::clone(variant);
        let run = Run { variant, interrupter: None, started: Instant::now(), interrupted: false, serial };
        *self.entry(worker) = Some(run);
        Watched { watch: self, worker, serial }
    }

    fn entry(&self, worker: usize) -> MutexGuard<'_, Option<Run>> {
        self.running[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched<'_> {
    /// The session is there and is about to run.
    pub(super) fn runs(&self, interrupter: Interrupter) {
        if let Some(run) = self.watch.entry(self.worker).as_mut().filter(|run| run.serial == self.serial) {
            run.interrupter = Some(interrupter);
            run.started = Instant::now();
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        // A worker that was given up may come back to an entry that is its successor's.
        let run = self.watch.entry(self.worker).take_if(|run| run.serial == self.serial);
        // Outside the lock: it may be the variant's last.
        drop(run);
    }
}

/// Watches over runs and variants until told to stop.
#[derive(Debug)]
pub(super) struct Watchdog {
    pub watch: Arc<Watch>,
    pub crew: Arc<Crew>,
    pub scheduler: DeviceScheduler,
    /// Longest time a batch may run.
    pub limit: Duration,
}

impl Watchdog {
    /// Watches until `stop` is sent or dropped.
    pub(super) fn run(&self, stop: &Receiver<()>) {
        // A run is ended at most this long after its time.
        let interval = (self.limit / 16).clamp(Duration::from_millis(1), Duration::from_millis(50));
        let (mut probed, mut trimmed) = (Instant::now(), Instant::now());
        let mut trimmer = Trimmer::start();
        while stop.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            let now = Instant::now();
            for worker in 0..self.watch.running.len() {
                self.look_at(worker, now);
            }
            if now.duration_since(probed) >= PROBE_INTERVAL {
                probed = now;
                self.crew.variants().iter().for_each(probe);
            }
            if now.duration_since(trimmed) >= REST {
                trimmed = now;
                trimmer.trim(self.crew.variants());
            }
        }
    }

    fn look_at(&self, worker: usize, now: Instant) {
        let mut entry = self.watch.entry(worker);
        let Some(run) = entry.as_mut() else { return };
        let ran = now.saturating_duration_since(run.started);
        let (model, version) = (run.variant.model_name.as_str(), run.variant.version.as_str());
        let given_up_after = match &run.interrupter {
            Some(interrupter) => {
                if ran >= self.limit && !run.interrupted {
                    tracing::error!(model, version, worker, ?ran, "a batch runs for too long; it is interrupted");
                    interrupter.interrupt();
                    run.interrupted = true;
                }
                self.limit.saturating_add(self.limit / 2)
            }
            None => self.limit.saturating_mul(OPENING),
        };
        if ran < given_up_after {
            return;
        }
        let stuck = self.scheduler.executing().into_iter().find(|executing| executing.worker == worker);
        // It may have come back since.
        let Some(successor) = stuck.filter(|s| s.started <= run.started).and_then(|s| self.scheduler.replace(&s))
        else {
            return;
        };
        tracing::error!(
            model,
            version,
            worker,
            ?ran,
            "a worker does not come back from a batch; another takes its place"
        );
        let run = entry.take();
        drop(entry);
        if let Some(run) = run {
            run.variant.batch_failed(Fault::Abandoned);
        }
        self.crew.start(successor);
    }
}

/// Has sessions that rest give memory back, on a thread of its own: it runs them, and a device that hangs must not keep the
/// watchdog from its watch. Not if it is still at those before.
///
/// The thread lasts. One for each time took the allocator's last heap from the loads and unloads of models, whose threads
/// then filled another.
#[derive(Debug)]
struct Trimmer(Option<SyncSender<Vec<Arc<ServedVariant>>>>);

impl Trimmer {
    fn start() -> Self {
        let (sender, resting) = mpsc::sync_channel::<Vec<Arc<ServedVariant>>>(0);
        let trimming = thread::Builder::new().name("volley-trim".into()).spawn(move || {
            for variants in resting {
                for variant in variants {
                    if let Runs::One(instances) = &variant.runs {
                        instances.trim_idle();
                    }
                }
            }
        });
        match trimming {
            Ok(_) => Self(Some(sender)),
            Err(error) => {
                tracing::warn!(%error, "no thread to trim resting sessions on");
                Self(None)
            }
        }
    }

    fn trim(&mut self, variants: Vec<Arc<ServedVariant>>) {
        let sent = self.0.as_ref().map(|sender| sender.try_send(variants));
        if !matches!(sent, Some(Ok(()) | Err(TrySendError::Full(_)))) {
            // There was no thread, or it has panicked.
            *self = Self::start();
        }
    }
}

/// Finds out, on a thread of its own, whether a variant that is taken out works again.
fn probe(variant: &Arc<ServedVariant>) {
    let Runs::One(instances) = &variant.runs else { return };
    if !variant.health.begin_probe(Instant::now()) {
        return;
    }
    let model = instances.model().clone();
    let variant = Arc::clone(variant);
    let probing = thread::Builder::new().name("volley-probe".into()).spawn(move || {
        let result = model.open_warm_session();
        let (name, version) = (&variant.model_name, &variant.version);
        match &result {
            Ok(_) => tracing::info!(model = name, version, "it works again and takes requests"),
            Err(error) => tracing::warn!(model = name, version, %error, "it does not work yet"),
        }
        variant.health.probed(result.is_ok());
    });
    if let Err(error) = probing {
        tracing::error!(%error, "a probe could not be started");
    }
}
