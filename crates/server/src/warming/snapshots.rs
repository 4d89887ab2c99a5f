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
        let (results, config) = (results.clone(), config.clone());
        let thread = thread::Builder::new()
            .name("volley-snapshot".into())
            .spawn(move || restore_and_save(&results, &path, &config, restoring, &leaves))?;
        Ok((Some(Self { thread, leaving }), restored))
    }

    /// Asks for the last snapshot, and hands over the thread that ends with it.
    pub(super) fn leave(self) -> JoinHandle<()> {
        drop(self.leaving);
        self.thread
    }
}

fn restore_and_save(
    results: &Results,
    path: &Path,
    config: &SnapshotConfig,
    restoring: Sender<Infallible>,
    leaves: &Receiver<()>,
) {
    let whole = restore(results, path, config.max_bytes, leaves);
    drop(restoring);
    // If not, the file is worth more than what was taken from it.
    if whole {
        keep_saving(results, path, config.interval, config.max_bytes, leaves);
    }
}

/// Whether it came to the end before the server leaves.
fn restore(results: &Results, path: &Path, max_bytes: u64, leaves: &Receiver<()>) -> bool {
    // Before any of it is read.
    if let Some(bytes) = fs::metadata(path).ok().map(|file| file.len()).filter(|bytes| *bytes > max_bytes) {
        tracing::warn!(path = %path.display(), bytes, max_bytes, "the snapshot is larger than cache.snapshot.max_bytes, and left out");
        return true;
    }
    let restore = match results.restore(path) {
        Ok(restore) => restore,
        // The first start.
        Err(RestoreError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return true,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no results were taken from the snapshot");
            return true;
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
        if is_leaving(leaves, began.elapsed() * RESTS) {
            tracing::info!(path = %path.display(), taken = progress.taken, of = progress.total, "the snapshot stays as it is");
            return false;
        }
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
    true
}

/// Whether the server leaves within this time.
fn is_leaving(leaves: &Receiver<()>, within: Duration) -> bool {
    leaves.recv_timeout(within) != Err(RecvTimeoutError::Timeout)
}

fn keep_saving(results: &Results, path: &Path, interval: Duration, max_bytes: u64, leaves: &Receiver<()>) {
    loop {
        let leaving = is_leaving(leaves, interval);
        let saved = if leaving { results.save_last(path, max_bytes) } else { results.save(path, max_bytes) };
        match saved {
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

#[cfg(test)]
mod tests {
    use volley_cache::{Lookup, Rank};

    use super::*;
    use crate::config::CacheConfig;

    /// A cache with a result of these bytes.
    fn results_with(input: &[u8]) -> Results {
        let config = CacheConfig { secret: Some("07".repeat(32)), ..CacheConfig::default() };
        let (Some(results), keyer) = Results::open(&config).expect("there is a thread") else {
            panic!("it is enabled")
        };
        let domain = results.domain("model", "1", &[]);
        let mut hasher = keyer.hasher();
        hasher.field(input);
        let Lookup::Lead(leader) = results.lookup(hasher.finish(), &domain, Rank { urgency: 0, deadline: None }) else {
            panic!("nobody else computes")
        };
        leader.complete(vec![7; 100].into());
        results
    }

    #[test]
    fn a_snapshot_that_was_not_read_to_its_end_stays_when_the_server_leaves() {
        let path = std::env::temp_dir().join(format!("volley-unread-{}", std::process::id()));
        results_with(b"before").save(&path, u64::MAX).expect("it is writable");
        let saved = fs::read(&path).expect("it is there");

        let next = results_with(b"now");
        let (restoring, _restored) = mpsc::channel();
        let (leaving, leaves) = mpsc::channel();
        drop(leaving);
        restore_and_save(&next, &path, &SnapshotConfig::default(), restoring, &leaves);
        assert!(next.reading().entries > 1, "it had begun");
        assert_eq!(fs::read(&path).expect("it is there"), saved);

        // Without one to read there is nothing to keep.
        fs::remove_file(&path).expect("it is there");
        let (restoring, _restored) = mpsc::channel();
        restore_and_save(&next, &path, &SnapshotConfig::default(), restoring, &leaves);
        assert!(fs::read(&path).expect("it is written").len() > saved.len());
        fs::remove_file(&path).expect("it is there");
    }
}
