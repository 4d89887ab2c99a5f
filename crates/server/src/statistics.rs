//! What a variant has done since it was loaded, counted as Triton counts it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often something happened and how long it took, all together. Whoever reads the two may see one without the other:
/// accesses are relaxed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Tally {
    /// It happened, and took this long.
    pub(crate) fn add(&self, took: Duration) {
        self.add_many(1, took);
    }

    fn add_many(&self, count: u64, each: Duration) {
        self.count.fetch_add(count, Ordering::Relaxed);
        self.ns.fetch_add(count * each.as_nanos() as u64, Ordering::Relaxed);
    }

    /// How often, and how many nanoseconds.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.count.load(Ordering::Relaxed), self.ns.load(Ordering::Relaxed))
    }
}

/// How long the parts of a batch took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Parts {
    /// Gathering the inputs.
    pub input: Duration,
    /// Running the model.
    pub infer: Duration,
    /// Handing out the outputs.
    pub output: Duration,
}

impl std::ops::AddAssign for Parts {
    fn add_assign(&mut self, other: Self) {
        self.input += other.input;
        self.infer += other.infer;
        self.output += other.output;
    }
}

/// The parts of what was computed.
#[derive(Debug, Default)]
pub(crate) struct Computing {
    /// Gathering the inputs.
    pub input: Tally,
    /// Running the model.
    pub infer: Tally,
    /// Handing out the outputs.
    pub output: Tally,
}

impl Computing {
    fn add(&self, count: u64, each: Parts) {
        self.input.add_many(count, each.input);
        self.infer.add_many(count, each.infer);
        self.output.add_many(count, each.output);
    }
}

/// The counts of one variant.
#[derive(Debug)]
pub(crate) struct Statistics {
    /// Requests that were answered, from arrival to answer.
    pub success: Tally,
    /// Requests that were not.
    pub fail: Tally,
    /// Requests that waited for a batch, and those that the cache answered.
    pub queue: Tally,
    /// Requests that were answered by the cache, or by another request's computation.
    pub cache_hit: Tally,
    /// Requests that the cache could not answer, and how long it took to see that.
    pub cache_miss: Tally,
    /// Requests that were computed.
    pub computing: Computing,
    /// Batches that ran, by rows.
    batches: Box<[Computing]>,
    inferences: AtomicU64,
    last: AtomicU64,
}

impl Statistics {
    /// Of a variant whose batches have up to `max_rows` rows. Nothing has happened yet.
    pub(crate) fn new(max_rows: usize) -> Self {
        Self {
            success: Tally::default(),
            fail: Tally::default(),
            queue: Tally::default(),
            cache_hit: Tally::default(),
            cache_miss: Tally::default(),
            computing: Computing::default(),
            batches: (0..max_rows).map(|_| Computing::default()).collect(),
            inferences: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// A batch of `requests` with `rows` rows in all ran.
    pub(crate) fn executed(&self, requests: usize, rows: usize, parts: Parts) {
        self.computing.add(requests as u64, parts);
        // A single request may be heavier than a full batch.
        if let Some(batch) = self.batches.get(rows.min(self.batches.len()).wrapping_sub(1)) {
            batch.add(1, parts);
        }
        self.inferences.fetch_add(rows as u64, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.store(now.as_millis() as u64, Ordering::Relaxed);
    }

    /// Rows that were computed.
    pub(crate) fn inferences(&self) -> u64 {
        self.inferences.load(Ordering::Relaxed)
    }

    /// When the last batch ended, in milliseconds since 1970; 0 if there was none.
    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Batches that ran, by rows.
    pub(crate) fn batches(&self) -> impl Iterator<Item = (usize, &Computing)> {
        self.batches.iter().enumerate().map(|(index, computing)| (index + 1, computing))
    }
}
