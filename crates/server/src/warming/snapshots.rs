//! The results that the last life of this server was asked for most, and those it leaves for the next.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use volley_cache::RestoreError;

use super::PROGRESS_INTERVAL;
use crate::config::SnapshotConfig;
use crate::results::Results;

/// While results are taken from the snapshot, so many times as long as that takes is left to others.
const RESTS: u32 = 2;

/// The thread that reads the snapshot and has the next ones written.
#[derive(Debug)]
pub(super) struct Snapshots {
    thread: JoinHandle<()>,
    /// Dropped, it asks for the last snapshot.
    leaving: Sender<()>,
}

impl Snapshots {
    /// Starts to read the snapshot that `config` names, if it names one. The receiver is disconnected when all of it is read.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        config: &SnapshotConfig,
        results: &Results,
    ) -> io::Result<(Option<Self>, Receiver<Infallible>)> {
        let (restoring, restored) = mpsc::channel();
        let Some(path) = config.path.clone() else { return Ok((None, restored)) };
        if let Some(Err(error)) = path.parent().map(fs::create_dir_all) {
            let path = path.display();
            tracing::warn!(%path, %error, "cache.snapshot.path: its folder cannot be made, so that nothing can be written");
        }
        let (leaving, leaves) = mpsc::channel();
        let (results, interval, max_bytes) = (results.clone(), config.interval, config.max_bytes);
        let thread = thread::Builder::new().name("volley-snapshot".into()).spawn(move || {
            restore(&results, &path);
            drop(restoring);
            keep_saving(&results, &path, interval, max_bytes, &leaves);
        })?;
        Ok((Some(Self { thread, leaving }), restored))
    }

    /// Writes the last snapshot, and ends.
    pub(super) fn finish(self) {
        drop(self.leaving);
        let _ = self.thread.join();
    }
}

fn restore(results: &Results, path: &Path) {
    let restore = match results.restore(path) {
        Ok(restore) => restore,
        // The first start.
        Err(RestoreError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no results were taken from the snapshot");
            return;
        }
    };
    let started = Instant::now();
    let (mut told, mut began) = (started, started);
    let mut last = None;
    for progress in restore {
        last = Some(progress);
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            tracing::info!(taken = progress.taken, of = progress.total, "results are taken from the snapshot");
        }
        // Others have something to do. Not at low priority: they would wait for the locks that this thread has at a time.
        thread::sleep(began.elapsed() * RESTS);
        began = Instant::now();
    }
    let progress = last.unwrap_or_default();
    tracing::info!(
        path = %path.display(),
        taken = progress.taken,
        left_out = progress.left_out,
        damaged = progress.damaged,
        of = progress.total,
        after_ms = started.elapsed().as_millis() as u64,
        "results were taken from the snapshot"
    );
}

fn keep_saving(results: &Results, path: &Path, interval: Duration, max_bytes: u64, leaves: &Receiver<()>) {
    loop {
        let leaving = leaves.recv_timeout(interval) != Err(RecvTimeoutError::Timeout);
        match results.save(path, max_bytes) {
            Ok(saved) => {
                tracing::debug!(path = %path.display(), entries = saved.entries, bytes = saved.bytes, "a snapshot was written");
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "no snapshot could be written"),
        }
        if leaving {
            return;
        }
    }
}
