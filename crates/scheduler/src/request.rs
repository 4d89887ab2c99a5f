//! What a caller hands in.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Instant;

use crate::{GroupId, Handoff, Priority, TenantId};

/// A piece of work, with what the scheduler needs to know about it.
///
/// # Examples
///
/// ```
/// use std::num::NonZeroUsize;
/// use std::time::{Duration, Instant};
/// use volley_scheduler::{Config, GroupConfig, Priority, Request, Scheduler};
///
/// let one = NonZeroUsize::MIN;
/// let (scheduler, _workers) = Scheduler::<&str, ()>::new(Config::default(), one);
/// let group = scheduler.add_group(GroupConfig::up_to(one));
/// let request = Request::new(group, "payload")
///     .priority(Priority::High)
///     .deadline(Instant::now() + Duration::from_millis(100));
/// assert_eq!(request.into_payload(), "payload");
/// ```
pub struct Request<T> {
    pub(crate) payload: T,
    pub(crate) group: GroupId,
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<Instant>,
    pub(crate) rows: NonZeroUsize,
    pub(crate) tenant: Option<TenantId>,
    pub(crate) handoff: Option<Handoff>,
}

impl<T> Request<T> {
    /// A request of one row and normal priority, without a deadline.
    #[must_use]
    pub const fn new(group: GroupId, payload: T) -> Self {
        Self {
            payload,
            group,
            priority: Priority::Normal,
            deadline: None,
            rows: NonZeroUsize::MIN,
            tenant: None,
            handoff: None,
        }
    }

    /// Sets the lane; [`Priority::Normal`] unless told.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the time at which the answer becomes worthless. A request that cannot be answered by then is dropped
    /// before it costs compute; one that is late all the same still gets its answer.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets how much of a batch the request takes, in the unit of
    /// [`GroupConfig::up_to`](crate::GroupConfig::up_to); one unless told.
    #[must_use]
    pub fn rows(mut self, rows: NonZeroUsize) -> Self {
        self.rows = rows;
        self
    }

    /// Sets on whose behalf the request comes: it counts against the tenant's quota, and tenants share the device fairly.
    /// All requests without one share as one tenant does, without a quota.
    #[must_use]
    pub fn tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Has the ticket's task woken through `handoff`, together with the others of its batch, by one wake of the
    /// runtime instead of one per request. For a ticket that a task on that runtime polls.
    #[must_use]
    pub fn handoff(mut self, handoff: &Handoff) -> Self {
        self.handoff = Some(handoff.clone());
        self
    }

    /// The payload.
    #[must_use]
    pub const fn payload(&self) -> &T {
        &self.payload
    }

    /// Gives the payload back.
    #[must_use]
    pub fn into_payload(self) -> T {
        self.payload
    }
}

impl<T> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("group", &self.group)
            .field("priority", &self.priority)
            .field("deadline", &self.deadline)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}
