//! Whether a request is let in.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crate::forecast::Forecast;
use crate::gate::{Gate, Refusal};
use crate::sync::{AtomicUsize, Ordering};
use crate::table::Table;
use crate::{Priority, Request, SubmitError, TenantId};

/// Lanes, quotas and the forecast: all that decides over a request at its submission.
pub(crate) struct Admission {
    pub(crate) gate: Gate,
    pub(crate) forecast: Forecast,
    /// How many requests of each tenant are queued. A number of its own, hence `Relaxed`.
    tenants: Table<AtomicUsize>,
}

/// Why a request is not let in. Without the request: most are, and need not be moved about for the others' sake.
pub(crate) enum Reason {
    TooLarge,
    DeadlinePassed,
    DeadlineUnmeetable(Duration),
    QuotaExceeded,
    Full,
    Closed,
}

impl Reason {
    /// The error that gives the request back.
    #[cold]
    pub(crate) fn refuse<T>(self, request: Request<T>) -> SubmitError<T> {
        match self {
            Self::TooLarge => SubmitError::TooLarge(request),
            Self::DeadlinePassed => SubmitError::DeadlinePassed(request),
            Self::DeadlineUnmeetable(wait) => SubmitError::DeadlineUnmeetable(request, wait),
            Self::QuotaExceeded => SubmitError::QuotaExceeded(request),
            Self::Full => SubmitError::Full(request),
            Self::Closed => SubmitError::Closed(request),
        }
    }
}

impl Admission {
    pub(crate) fn new(lane_capacity: NonZeroUsize, workers: usize, epoch: Instant) -> Self {
        Self { gate: Gate::new(lane_capacity), forecast: Forecast::new(epoch, workers), tenants: Table::new() }
    }

    /// Lets a request in, which takes a place of its lane and of its tenant's quota; or says why not.
    pub(crate) fn enter<T>(&self, now: Instant, request: &Request<T>) -> Result<(), Reason> {
        let (group, rows, lane) = (request.group, request.rows.get(), request.priority);
        if rows > group.max_rows() {
            return Err(Reason::TooLarge);
        }
        if let Some(deadline) = request.deadline {
            if deadline <= now {
                return Err(Reason::DeadlinePassed);
            }
            if let Some(wait) = self.forecast.hopeless_wait(now, request.tenant, lane, group, rows, deadline) {
                return Err(if self.gate.is_closed() { Reason::Closed } else { Reason::DeadlineUnmeetable(wait) });
            }
        }
        if let Some(tenant) = request.tenant {
            let queued = self.tenants.get(tenant.number());
            if queued.fetch_add(1, Ordering::Relaxed) >= tenant.quota() {
                queued.fetch_sub(1, Ordering::Relaxed);
                return Err(Reason::QuotaExceeded);
            }
        }
        self.gate.enter(lane).map_err(|refusal| {
            self.leave_tenant(request.tenant);
            match refusal {
                Refusal::Full => Reason::Full,
                Refusal::Closed => Reason::Closed,
            }
        })
    }

    /// Gives back the place of a request that is queued no longer. True if that left a closed lane empty, which
    /// whoever waits for the end must hear.
    #[must_use]
    pub(crate) fn leave(&self, lane: Priority, tenant: Option<TenantId>) -> bool {
        self.leave_tenant(tenant);
        self.gate.leave(lane, 1)
    }

    /// Gives back the place in the quota alone.
    pub(crate) fn leave_tenant(&self, tenant: Option<TenantId>) {
        if let Some(tenant) = tenant {
            self.tenants.get(tenant.number()).fetch_sub(1, Ordering::Relaxed);
        }
    }
}
