//! Why a request was not accepted, and why an accepted one has no value.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::{Priority, Request};

/// Why a request was refused; gives the request back.
///
/// # Examples
///
/// ```
/// use std::num::NonZeroUsize;
/// use volley_scheduler::{Config, GroupConfig, Request, Scheduler};
///
/// let (scheduler, _workers) = Scheduler::<_, ()>::new(Config::default(), NonZeroUsize::MIN);
/// let group = scheduler.add_group(GroupConfig::up_to(NonZeroUsize::MIN));
/// scheduler.close();
///
/// let error = scheduler.submit(Request::new(group, "work")).expect_err("closed");
/// assert!(error.is_closed());
/// assert_eq!(error.into_request().into_payload(), "work");
/// ```
#[non_exhaustive]
pub enum SubmitError<T> {
    /// The request's lane holds all that it may. Later, or on another replica, it may be accepted.
    Full(Request<T>),
    /// The request alone has more rows than a batch of its group may have; it never will be accepted.
    TooLarge(Request<T>),
    /// The request's deadline had passed before it was submitted.
    DeadlinePassed(Request<T>),
    /// The request would not be done by its deadline, as far as can be told: it would first have to wait this long.
    /// After that wait, or on another replica, one like it may be accepted.
    DeadlineUnmeetable(Request<T>, Duration),
    /// The request's tenant has as many requests queued as it may.
    QuotaExceeded(Request<T>),
    /// The scheduler was closed, or has no worker left.
    Closed(Request<T>),
}

impl<T> SubmitError<T> {
    /// The refused request.
    #[must_use]
    pub const fn request(&self) -> &Request<T> {
        match self {
            Self::Full(request)
            | Self::TooLarge(request)
            | Self::DeadlinePassed(request)
            | Self::DeadlineUnmeetable(request, _)
            | Self::QuotaExceeded(request)
            | Self::Closed(request) => request,
        }
    }

    /// Gives the refused request back.
    #[must_use]
    pub fn into_request(self) -> Request<T> {
        match self {
            Self::Full(request)
            | Self::TooLarge(request)
            | Self::DeadlinePassed(request)
            | Self::DeadlineUnmeetable(request, _)
            | Self::QuotaExceeded(request)
            | Self::Closed(request) => request,
        }
    }

    /// The lane that the request asked for.
    #[must_use]
    pub const fn lane(&self) -> Priority {
        self.request().priority
    }

    /// Whether the lane was full.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Whether the request alone exceeds a batch of its group.
    #[must_use]
    pub const fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge(_))
    }

    /// Whether the deadline had already passed.
    #[must_use]
    pub const fn is_deadline_passed(&self) -> bool {
        matches!(self, Self::DeadlinePassed(_))
    }

    /// Whether the request could not be done by its deadline.
    #[must_use]
    pub const fn is_deadline_unmeetable(&self) -> bool {
        matches!(self, Self::DeadlineUnmeetable(..))
    }

    /// Whether the tenant's quota was used up.
    #[must_use]
    pub const fn is_quota_exceeded(&self) -> bool {
        matches!(self, Self::QuotaExceeded(_))
    }

    /// How long the request would have had to wait before a batch took it, where that is why it was refused: what a
    /// caller should let pass before it tries again.
    #[must_use]
    pub const fn predicted_wait(&self) -> Option<Duration> {
        match self {
            Self::DeadlineUnmeetable(_, wait) => Some(*wait),
            _ => None,
        }
    }

    /// Whether the scheduler no longer accepts requests.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl<T> fmt::Display for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(request) => write!(f, "the {} lane is full", request.priority),
            Self::TooLarge(request) => write!(
                f,
                "the request has {} rows, but a batch of its group holds at most {}",
                request.rows,
                request.group.max_rows()
            ),
            Self::DeadlinePassed(_) => f.write_str("the deadline had passed before the request was submitted"),
            Self::DeadlineUnmeetable(_, wait) => {
                write!(f, "the deadline cannot be met: the predicted wait alone is {} ms", wait.as_millis())
            }
            Self::QuotaExceeded(request) => write!(
                f,
                "the tenant's quota of {} queued requests is used up",
                request.tenant.map_or(0, crate::TenantId::quota)
            ),
            Self::Closed(_) => f.write_str("the scheduler is closed"),
        }
    }
}

impl<T> fmt::Debug for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Full(_) => "Full",
            Self::TooLarge(_) => "TooLarge",
            Self::DeadlinePassed(_) => "DeadlinePassed",
            Self::DeadlineUnmeetable(..) => "DeadlineUnmeetable",
            Self::QuotaExceeded(_) => "QuotaExceeded",
            Self::Closed(_) => "Closed",
        };
        f.debug_tuple(name).field(self.request()).finish()
    }
}

impl<T> Error for SubmitError<T> {}

/// Why an accepted request has no value. Dropping its [`Ticket`](crate::Ticket) is no failure: nobody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// The deadline passed, or could no longer be met, while the request was queued. It cost no compute.
    DeadlineExceeded,
    /// The executor panicked on the batch that the request was in.
    WorkerPanicked,
    /// The worker did not come back from the batch that the request was in, and was [replaced](crate::Scheduler::replace).
    Abandoned,
    /// The executor returned without completing the request.
    Unanswered,
    /// The last worker ended before the request was taken.
    ShutDown,
}

impl Failure {
    /// Whether the request was given up for its deadline.
    #[must_use]
    pub const fn is_deadline_exceeded(self) -> bool {
        matches!(self, Self::DeadlineExceeded)
    }

    /// Whether the work itself went wrong: the executor panicked, never came back, or left the request out.
    #[must_use]
    pub const fn is_executor_fault(self) -> bool {
        matches!(self, Self::WorkerPanicked | Self::Abandoned | Self::Unanswered)
    }

    /// Whether the scheduler ended first.
    #[must_use]
    pub const fn is_shut_down(self) -> bool {
        matches!(self, Self::ShutDown)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeadlineExceeded => "the deadline could not be met",
            Self::WorkerPanicked => "the worker panicked while executing the batch",
            Self::Abandoned => "the worker did not come back from the batch and was replaced",
            Self::Unanswered => "the executor left the request unanswered",
            Self::ShutDown => "the scheduler was shut down before the request was executed",
        })
    }
}

impl Error for Failure {}
