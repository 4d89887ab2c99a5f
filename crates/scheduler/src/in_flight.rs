//! What each worker executes at the moment, where others can see it and, if the worker never comes back, give it up.
//!
//! While a worker executes a batch, the promises of that batch lie here, and so does the worker's parker; the payloads stay
//! with the worker. Whoever takes them out owes the outcomes: the worker when it is done, or [`Scheduler::replace`] before.
//! The lock decides which, so that each request has exactly one outcome. A worker that finds its promises gone was
//! replaced: it goes without a word.
//!
//! [`Scheduler::replace`]: crate::Scheduler::replace

use std::time::Instant;

use crate::answer::Owed;
use crate::batch::{Settlement, settle_one};
use crate::delivery::Delivery;
use crate::outcome::BatchInfo;
use crate::sync::{Mutex, Parker};
use crate::{Failure, GroupId, Handoff, Priority};

/// What one worker executes. Locked by the worker twice a batch, and by others now and then.
pub(crate) struct InFlight<R>(Mutex<State<R>>);

struct State<R> {
    /// The number of the batch last begun.
    serial: u64,
    held: Option<Held<R>>,
}

/// A batch that is being executed.
pub(crate) struct Held<R> {
    pub(crate) promises: Vec<Promise<R>>,
    pub(crate) parker: Parker,
    pub(crate) facts: Facts,
}

/// What is known of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) group: GroupId,
    pub(crate) rows: usize,
    pub(crate) formed: Instant,
    pub(crate) started: Instant,
}

/// What a request of it is owed.
pub(crate) struct Promise<R> {
    pub(crate) owed: Owed<R>,
    pub(crate) handoff: Option<Handoff>,
    /// Its effective priority when it was taken.
    pub(crate) priority: Priority,
}

/// A batch that is being executed. From [`Scheduler::executing`](crate::Scheduler::executing).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executing {
    /// The number of the worker.
    pub worker: usize,
    /// What the batch is of.
    pub group: GroupId,
    /// How many rows it has.
    pub rows: usize,
    /// When the executor was called.
    pub started: Instant,
    serial: u64,
}

impl<R> InFlight<R> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State { serial: 0, held: None }))
    }

    /// A batch begins; gives back its number.
    pub(crate) fn begin(&self, held: Held<R>) -> u64 {
        let mut state = self.0.lock();
        state.serial += 1;
        state.held = Some(held);
        state.serial
    }

    /// Takes batch `serial` out, unless somebody else has.
    pub(crate) fn take(&self, serial: u64) -> Option<Held<R>> {
        let mut state = self.0.lock();
        if state.serial == serial { state.held.take() } else { None }
    }

    /// What `worker`, whose this is, executes.
    pub(crate) fn look(&self, worker: usize) -> Option<Executing> {
        let state = self.0.lock();
        let Facts { group, rows, started, .. } = state.held.as_ref()?.facts;
        Some(Executing { worker, group, rows, started, serial: state.serial })
    }

    /// Takes out the batch that `executing` describes, if it is still executed.
    pub(crate) fn seize(&self, executing: &Executing) -> Option<Held<R>> {
        self.take(executing.serial)
    }
}

impl<R> Held<R> {
    /// Ends every request of it with [`Failure::Abandoned`]. Gives the parker back.
    pub(crate) fn abandon(self) -> Parker {
        let Self { promises, parker, facts } = self;
        let (len, now) = (promises.len(), Instant::now());
        let mut delivery = Delivery::default();
        for promise in promises {
            let settlement =
                Settlement { result: Err(Failure::Abandoned), batch: Some(facts.info(len, promise.priority)) };
            settle_one(promise.owed, promise.handoff, settlement, now, &mut delivery);
        }
        delivery.send();
        parker
    }
}

impl Facts {
    /// What a request of `priority` hears of its batch of `len` requests.
    pub(crate) fn info(&self, len: usize, priority: Priority) -> BatchInfo {
        BatchInfo { formed: self.formed, started: self.started, len, rows: self.rows, priority }
    }
}
