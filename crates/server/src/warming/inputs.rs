//! The results of files of inputs, computed in the background as if somebody had asked for them.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::oneshot;
use volley_gpu_runtime::InputFile;
use volley_scheduler::Handoff;

use super::PROGRESS_INTERVAL;
use super::row::Row;
use crate::catalog::ServedVariant;
use crate::error::{ApiError, Cause};
use crate::pipeline::{self, Pipeline, Warmth};

/// Rows that are computed at once: enough for batches, too few for a request to notice.
const IN_FLIGHT: usize = 4;

/// After this a row is tried again that there was no place for.
const PAUSE: Duration = Duration::from_millis(50);

/// The thread that computes the results of every model's `warm_inputs`, once at the start and again for a model that is
/// loaded anew. Workers compute them behind everything else. The thread itself, which has little to do, is not of low priority:
/// it takes locks that requests wait for.
#[derive(Debug)]
pub(super) struct Inputs {
    thread: JoinHandle<()>,
    /// Dropped, it asks the thread to end.
    leaving: Option<oneshot::Sender<()>>,
}

impl Inputs {
    /// Starts when `restored` is disconnected, so that nothing is computed that is in the snapshot; `limit` is how long each
    /// file may take. The receiver is disconnected when the files of what is served now are done.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        limit: Duration,
        pipeline: &Arc<Pipeline>,
        restored: Receiver<Infallible>,
    ) -> io::Result<(Self, Receiver<Infallible>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (leaving, leaves) = oneshot::channel();
        let (warming, warm) = mpsc::channel();
        let pipeline = Arc::clone(pipeline);
        let thread = thread::Builder::new().name("volley-warming".into()).spawn(move || {
            let _ = restored.recv();
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = leaves => {}
                    () = keep_warm(&pipeline, limit, warming) => {}
                }
            });
        })?;
        Ok((Self { thread, leaving: Some(leaving) }, warm))
    }

    pub(super) fn stop(&mut self) {
        self.leaving = None;
    }

    /// Has it stop, and hands over the thread that does.
    pub(super) fn leave(mut self) -> JoinHandle<()> {
        self.stop();
        self.thread
    }
}

async fn keep_warm(pipeline: &Pipeline, limit: Duration, warming: Sender<Infallible>) {
    let mut changes = pipeline.catalog.changes();
    let mut warming = Some(warming);
    let mut done: Vec<Weak<ServedVariant>> = Vec::new();
    loop {
        changes.mark_unchanged();
        done.retain(|variant| variant.strong_count() > 0);
        for (path, variant) in pipeline.catalog.warm_inputs() {
            let weak = Arc::downgrade(&variant);
            if !done.iter().any(|other| other.ptr_eq(&weak)) {
                warm(pipeline, &path, &variant, limit).await;
                done.push(weak);
            }
        }
        drop(warming.take());
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// What became of the rows of a file.
#[derive(Debug, Default)]
struct Tally {
    computed: usize,
    known: usize,
    refused: usize,
}

/// Computes the rows of the file at `path`, in their order, until the cache is full, `limit` is over or `variant` is no
/// longer what is asked for.
async fn warm(pipeline: &Pipeline, path: &Path, variant: &Arc<ServedVariant>, limit: Duration) {
    let ServedVariant { model_name: model, version, .. } = &**variant;
    let file = path.display();
    let mut rows = match InputFile::open(path, variant.inputs()) {
        Ok(rows) => rows,
        Err(error) => {
            tracing::warn!(model, version, %error, "no results were computed from warm_inputs");
            return;
        }
    };
    let (started, of, handoff) = (Instant::now(), rows.rows(), Handoff::new());
    let mut told = started;
    let mut tally = Tally::default();
    let answers = stream::iter(0..of).map(|row| {
        let read = rows.read(row).map(Row::new);
        let handoff = &handoff;
        async move {
            let answer = match read {
                Ok(read) => answer(pipeline, handoff, variant, read).await,
                Err(error) => Err(ApiError::new(Cause::Internal, error.to_string())),
            };
            (row, answer)
        }
    });
    let mut answers = answers.buffered(IN_FLIGHT);
    let ended = loop {
        let Ok(next) = tokio::time::timeout_at((started + limit).into(), answers.next()).await else {
            break "its time was over";
        };
        match next {
            None => break "all was computed",
            Some((_, Ok(Warmth::Full))) => break "the cache is full",
            Some((_, Ok(Warmth::Unkept))) => break "the cache keeps no result of this model",
            Some((_, Ok(Warmth::Kept))) => tally.computed += 1,
            Some((_, Ok(Warmth::Known))) => tally.known += 1,
            Some((row, Err(error))) => {
                if tally.refused == 0 {
                    let error = error.message;
                    tracing::warn!(model, version, %file, row, error, "a row of warm_inputs was refused");
                }
                tally.refused += 1;
            }
        }
        // Where workers are faster than this thread there is always an answer, and it would not hear that it is to end.
        tokio::task::yield_now().await;
        if !pipeline.catalog.answers_by_default(variant) {
            break "the model was replaced";
        }
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            let done = tally.computed + tally.known + tally.refused;
            tracing::info!(model, version, done, of, "results are computed from warm_inputs");
        }
    };
    let Tally { computed, known, refused } = tally;
    tracing::info!(
        model,
        version,
        %file,
        computed,
        known,
        refused,
        of,
        ended,
        after_ms = started.elapsed().as_millis() as u64,
        "results were computed from warm_inputs"
    );
}

/// Tries until there is a place for it.
async fn answer(
    pipeline: &Pipeline,
    handoff: &Handoff,
    variant: &Arc<ServedVariant>,
    row: Row,
) -> Result<Warmth, ApiError> {
    loop {
        match pipeline::warm(pipeline, handoff, variant, row.clone()).await {
            Err(error) if matches!(error.cause, Cause::QueueFull | Cause::Unavailable) => {
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}
