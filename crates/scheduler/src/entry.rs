//! A request on its way: queued as an [`Entry`], in a batch as an [`Item`].

use std::time::Instant;

use crate::answer::{Caller, Owed, Pending, Place, halves};
use crate::core::Core;
use crate::sync::Arc;
use crate::{GroupId, Handoff, Priority, Request};

/// A request that is queued.
pub(crate) struct Entry<T, R> {
    pub(crate) payload: T,
    pub(crate) group: GroupId,
    pub(crate) priority: Priority,
    pub(crate) submitted: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) rows: usize,
    pub(crate) handoff: Option<Handoff>,
    pub(crate) promise: Pending<R>,
}

/// A request that was taken out of the queue: an outcome is owed.
pub(crate) struct Item<T, R> {
    pub(crate) payload: T,
    pub(crate) submitted: Instant,
    pub(crate) rows: usize,
    /// The lane whose place it held.
    pub(crate) lane: Priority,
    /// Its effective priority when it was taken.
    pub(crate) priority: Priority,
    pub(crate) handoff: Option<Handoff>,
    pub(crate) owed: Owed<R>,
}

impl<T, R> Entry<T, R> {
    /// The two halves of a request that was let in through the gate.
    pub(crate) fn new(request: Request<T>, submitted: Instant, core: &Arc<Core>) -> (Caller<R>, Self) {
        let (caller, promise) = halves(Place { core: Arc::clone(core), priority: request.priority, submitted });
        let entry = Self {
            payload: request.payload,
            group: request.group,
            priority: request.priority,
            submitted,
            deadline: request.deadline,
            rows: request.rows.get(),
            handoff: request.handoff,
            promise,
        };
        (caller, entry)
    }

    /// Undoes [`Entry::new`] for a request that found no room after all.
    pub(crate) fn into_request(self) -> Request<T> {
        Request {
            payload: self.payload,
            group: self.group,
            priority: self.priority,
            deadline: self.deadline,
            rows: self.rows.try_into().expect("rows came from a positive number"),
            handoff: self.handoff,
        }
    }

    /// Takes the request out of the queue; gives the payload back if it was withdrawn.
    pub(crate) fn claim(self, priority: Priority) -> Result<Item<T, R>, T> {
        match self.promise.claim() {
            Some(owed) => Ok(Item {
                payload: self.payload,
                submitted: self.submitted,
                rows: self.rows,
                lane: self.priority,
                priority,
                handoff: self.handoff,
                owed,
            }),
            None => Err(self.payload),
        }
    }
}

/// What left the queue otherwise than in a batch. Collected under the queue's lock, dealt with outside: dropping a
/// payload and waking a task run the user's code.
pub(crate) struct Removed<T, R> {
    /// Their deadlines cannot be met; their callers are to be told so.
    pub(crate) hopeless: Vec<Item<T, R>>,
    /// Withdrawn by their callers.
    pub(crate) withdrawn: Vec<T>,
}

impl<T, R> Removed<T, R> {
    pub(crate) const fn new() -> Self {
        Self { hopeless: Vec::new(), withdrawn: Vec::new() }
    }
}
