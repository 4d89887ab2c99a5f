//! Ending a run from outside.
//!
//! ONNX Runtime looks at a run's terminate flag between operators, so what ends is a run of several operators; one that
//! never returns from an operator cannot be ended.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort::session::{NoSelectedOutputs, RunOptions};

use crate::provider::Provider;

/// Ends one run of one session: the one in progress when it was made, or the next to begin. It can be kept and used at
/// any time; it never touches another run.
#[derive(Debug, Clone)]
pub struct Interrupter {
    flag: Arc<Flag>,
    run: u64,
}

impl Interrupter {
    /// Makes the run fail before its next operator. Before the run has begun and after it has ended, nothing happens.
    pub fn interrupt(&self) {
        let progress = self.flag.progress();
        if !progress.running || progress.run != self.run {
            return;
        }
        for options in self.flag.all() {
            if let Err(error) = options.terminate() {
                tracing::error!(%error, "a run could not be interrupted");
            }
        }
    }
}

/// A session's terminate flag, and which run it is about.
pub(crate) struct Flag {
    plain: RunOptions<NoSelectedOutputs>,
    /// Of a run that gives back, at its end, what memory the arenas do not need.
    shrinking: RunOptions<NoSelectedOutputs>,
    /// Locked for moments: by the session at the beginning and the end of a run, by whoever interrupts it.
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// The number of the latest run.
    run: u64,
    running: bool,
}

/// A run in progress; it ends when this is dropped.
pub(crate) struct Running<'a>(&'a Flag);

impl Flag {
    /// For a session on `device` of `provider`.
    pub(crate) fn new(provider: Provider, device: i32) -> ort::Result<Arc<Self>> {
        let arenas = match provider {
            Provider::Cpu => "cpu:0".to_owned(),
            Provider::Cuda | Provider::TensorRt => format!("cpu:0;gpu:{device}"),
        };
        let mut shrinking = RunOptions::new()?;
        shrinking.set("memory.enable_memory_arena_shrinkage", arenas)?;
        Ok(Arc::new(Self { plain: RunOptions::new()?, shrinking, progress: Mutex::default() }))
    }

    fn all(&self) -> [&RunOptions<NoSelectedOutputs>; 2] {
        [&self.plain, &self.shrinking]
    }

    /// Begins a run, to be made with [`Running::options`].
    pub(crate) fn begin(&self) -> ort::Result<Running<'_>> {
        let mut progress = self.progress();
        // What interrupted an earlier run is over. No interrupter can be at it while the lock is held.
        for options in self.all() {
            options.unterminate()?;
        }
        progress.run += 1;
        progress.running = true;
        Ok(Running(self))
    }

    pub(crate) fn interrupter(self: &Arc<Self>) -> Interrupter {
        let progress = self.progress();
        let run = if progress.running { progress.run } else { progress.run + 1 };
        Interrupter { flag: Arc::clone(self), run }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running<'_> {
    /// With what to run; `shrink` is whether memory is to be given back.
    pub(crate) fn options(&self, shrink: bool) -> &RunOptions<NoSelectedOutputs> {
        if shrink { &self.0.shrinking } else { &self.0.plain }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.progress().running = false;
    }
}

impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flag").field("progress", &self.progress).finish_non_exhaustive()
    }
}
