//! A request on its way: queued as an [`Entry`], in a batch as an [`Item`].

use std::time::Instant;

use crate::answer::{Caller, Owed, Pending, Submission, halves};
use crate::{GroupId, Handoff, Priority, Request, TenantId};

/// A request that is queued: what the policy knows of it, and its content, which the policy does not look into.
pub(crate) struct Entry<C> {
    pub(crate) group: GroupId,
    pub(crate) priority: Priority,
    pub(crate) submitted: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) rows: usize,
    pub(crate) tenant: Option<TenantId>,
    pub(crate) content: C,
}

/// A request that was taken out of the queue.
pub(crate) struct Item<C> {
    pub(crate) submitted: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) rows: usize,
    pub(crate) tenant: Option<TenantId>,
    /// The lane whose place it held.
    pub(crate) lane: Priority,
    /// Its effective priority when it was taken.
    pub(crate) priority: Priority,
    pub(crate) content: C,
}

/// What the queue carries for others.
pub(crate) trait Content {
    /// What it becomes in a batch.
    type Claimed;
    /// What is left of it when its caller withdrew it.
    type Withdrawn;

    fn is_withdrawn(&self) -> bool;

    /// Takes it out of the queue, unless it was withdrawn.
    fn claim(self) -> Result<Self::Claimed, Self::Withdrawn>;
}

/// A payload whose caller holds a ticket.
pub(crate) struct Ticketed<T, R> {
    pub(crate) payload: T,
    handoff: Option<Handoff>,
    promise: Pending<R>,
}

/// A payload whose caller can no longer withdraw it: an outcome is owed.
pub(crate) struct Claimed<T, R> {
    pub(crate) payload: T,
    pub(crate) handoff: Option<Handoff>,
    pub(crate) owed: Owed<R>,
}

/// A request with a ticket, queued.
pub(crate) type Queued<T, R> = Entry<Ticketed<T, R>>;

/// A request with a ticket, taken.
pub(crate) type Taken<T, R> = Item<Claimed<T, R>>;

impl<T, R> Content for Ticketed<T, R> {
    type Claimed = Claimed<T, R>;
    type Withdrawn = T;

    fn is_withdrawn(&self) -> bool {
        self.promise.is_withdrawn()
    }

    fn claim(self) -> Result<Claimed<T, R>, T> {
        match self.promise.claim() {
            Some(owed) => Ok(Claimed { payload: self.payload, handoff: self.handoff, owed }),
            None => Err(self.payload),
        }
    }
}

impl<T, R> Entry<Ticketed<T, R>> {
    /// The two halves of a request that was let in through the gate.
    pub(crate) fn ticketed(request: Request<T>, submitted: Instant) -> (Caller<R>, Self) {
        let (caller, promise) =
            halves(Submission { at: submitted, priority: request.priority, tenant: request.tenant });
        let entry = Entry::new(request, submitted, |payload, handoff| Ticketed { payload, handoff, promise });
        (caller, entry)
    }

    /// Undoes [`Entry::ticketed`] for a request that found no room after all.
    pub(crate) fn into_request(self) -> Request<T> {
        Request {
            payload: self.content.payload,
            group: self.group,
            priority: self.priority,
            deadline: self.deadline,
            rows: self.rows.try_into().expect("rows came from a positive number"),
            tenant: self.tenant,
            handoff: self.content.handoff,
        }
    }
}

impl<C> Entry<C> {
    pub(crate) fn new<T>(
        request: Request<T>,
        submitted: Instant,
        content: impl FnOnce(T, Option<Handoff>) -> C,
    ) -> Self {
        Self {
            group: request.group,
            priority: request.priority,
            submitted,
            deadline: request.deadline,
            rows: request.rows.get(),
            tenant: request.tenant,
            content: content(request.payload, request.handoff),
        }
    }
}

impl<C: Content> Entry<C> {
    pub(crate) fn claim(self, priority: Priority) -> Result<Item<C::Claimed>, C::Withdrawn> {
        let content = self.content.claim()?;
        Ok(Item {
            submitted: self.submitted,
            deadline: self.deadline,
            rows: self.rows,
            tenant: self.tenant,
            lane: self.priority,
            priority,
            content,
        })
    }
}

/// What left the queue otherwise than in a batch. Collected under the queue's lock, dealt with outside: dropping a
/// payload and waking a task run the user's code.
pub(crate) struct Removed<C: Content> {
    /// Their deadlines cannot be met; their callers are to be told so.
    pub(crate) hopeless: Vec<Item<C::Claimed>>,
    /// Withdrawn by their callers.
    pub(crate) withdrawn: Vec<C::Withdrawn>,
}

impl<C: Content> Removed<C> {
    pub(crate) const fn new() -> Self {
        Self { hopeless: Vec::new(), withdrawn: Vec::new() }
    }
}
