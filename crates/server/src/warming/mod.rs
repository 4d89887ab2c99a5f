//! What the cache begins with: the results of the last life's snapshot, then those of the models' files of inputs.

mod inputs;
mod row;
mod snapshots;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inputs::Inputs;
use snapshots::Snapshots;

use crate::config::CacheConfig;
use crate::joining::join_until;
use crate::pipeline::Pipeline;

/// Between two words on how far it has come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// The threads that warm the cache.
#[derive(Debug, Default)]
pub(crate) struct Warming {
    snapshots: Option<Snapshots>,
    inputs: Option<Inputs>,
}

impl Warming {
    /// Starts to warm the cache of `pipeline`, if it has one; workers must be there to compute. Returns when it is warm, or has
    /// held up the server for as long as it may.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(config: &CacheConfig, pipeline: &Arc<Pipeline>) -> io::Result<Self> {
        let Some(results) = &pipeline.results else { return Ok(Self::default()) };
        let (snapshots, restored) = Snapshots::start(&config.snapshot, results)?;
        let (inputs, warm) = Inputs::start(config.warming.limit, pipeline, restored)?;
        // Nothing is ever sent: it is disconnected when all is done.
        let _ = warm.recv_timeout(config.warming.hold_ready);
        Ok(Self { snapshots, inputs: Some(inputs) })
    }

    /// Computes nothing more.
    pub(crate) fn stop(&mut self) {
        self.inputs.iter_mut().for_each(Inputs::stop);
    }

    /// Writes the last snapshot, and ends; at `deadline` in any case. Reading and writing take as long as a file system lets
    /// them.
    pub(crate) fn finish_until(self, deadline: Instant) {
        let Self { snapshots, inputs } = self;
        let threads = inputs.map(Inputs::leave).into_iter().chain(snapshots.map(Snapshots::leave)).collect();
        if join_until(threads, deadline) > 0 {
            tracing::warn!(
                "the cache was not done with its files in time; if no snapshot was written, the one before stays"
            );
        }
    }
}
