//! One session for each worker, replaced when it is lost.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::error::LoadError;
use crate::model::Model;
use crate::session::Session;

/// A model with a session for each worker.
///
/// A worker [leases](Self::lease) its session for one batch. What it does not give back (because the session failed, or
/// the worker never returned from it) is opened anew at the next lease.
#[derive(Debug)]
pub struct Instances {
    model: Model,
    slots: Box<[Slot]>,
}

struct Slot {
    /// Locked to take the session and to give it back, and never while a worker's batch runs.
    place: Mutex<Place>,
    /// The session's learned limit when it was last given back. It stands for itself, so relaxed.
    row_limit: AtomicUsize,
}

#[derive(Default)]
struct Place {
    session: Option<Session>,
    /// What [`Instances::trim_idle`] has seen of it.
    rest: Rest,
}

/// How long a session has rested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Rest {
    /// It was leased since the last look.
    #[default]
    Busy,
    /// It was not.
    Idle,
    /// Its memory was given back.
    Trimmed,
}

impl Instances {
    /// Opens and warms up `count` sessions of `model`.
    ///
    /// # Errors
    /// [`LoadError`] when memory does not suffice for all, or one cannot be made or does not run.
    pub fn open(model: Model, count: NonZeroUsize) -> Result<Self, LoadError> {
        model.check_headroom(count)?;
        let slots = (0..count.get())
            .map(|_| {
                let session = model.open_warm_session()?;
                let row_limit = AtomicUsize::new(session.row_limit());
                let place = Place { session: Some(session), rest: Rest::Busy };
                Ok(Slot { row_limit, place: Mutex::new(place) })
            })
            .collect::<Result<_, LoadError>>()?;
        Ok(Self { model, slots })
    }

    /// What the sessions are of.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The session of `worker`, counted from 0. If it was lost, one is opened and warmed up now, on the calling thread.
    ///
    /// # Errors
    /// [`LoadError`] when a session has to be opened and cannot be.
    ///
    /// # Panics
    /// If there are not as many workers.
    pub fn lease(&self, worker: usize) -> Result<Lease<'_>, LoadError> {
        let slot = &self.slots[worker];
        let kept = slot.take();
        let session = match kept {
            Some(session) => session,
            None => self.model.open_warm_session()?,
        };
        Ok(Lease { session: Some(session), slot })
    }

    /// Gives back the memory that sessions keep for larger batches, of those that were not leased since the last call but
    /// one, and has those that learned a limit try for more; to be called now and then. It runs them, so that it may take as
    /// long as a device takes to answer. A worker that comes for its session meanwhile opens another.
    pub fn trim_idle(&self) {
        for slot in &self.slots {
            let Some(mut session) = slot.take_rested() else { continue };
            match session.trim() {
                Ok(()) => slot.give_back(session, Rest::Trimmed),
                Err(error) => tracing::warn!(%error, "a session that rests could not give its memory back"),
            }
        }
    }

    /// Rows that are run at once: the least of what the sessions learned, see [`Session::row_limit`].
    #[must_use]
    pub fn row_limit(&self) -> usize {
        let limits = self.slots.iter().map(|slot| slot.row_limit.load(Ordering::Relaxed));
        limits.min().unwrap_or(self.model.max_batch().get())
    }
}

impl Slot {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Session> {
        std::mem::take(&mut *self.place()).session
    }

    /// The session, if it has rested for long enough to be trimmed.
    fn take_rested(&self) -> Option<Session> {
        let mut place = self.place();
        let session = place.session.as_ref()?;
        let is_limited = session.row_limit() < session.max_rows();
        match place.rest {
            Rest::Busy => {
                place.rest = Rest::Idle;
                None
            }
            Rest::Trimmed if !is_limited => None,
            Rest::Idle | Rest::Trimmed => place.session.take(),
        }
    }

    /// Puts `session` there, unless another has taken its place.
    fn give_back(&self, session: Session, rest: Rest) {
        let mut place = self.place();
        if place.session.is_none() {
            self.row_limit.store(session.row_limit(), Ordering::Relaxed);
            *place = Place { session: Some(session), rest };
        }
    }
}

/// A worker's session, for one batch. Dropping it gives the session back, unless its thread panics.
#[derive(Debug)]
pub struct Lease<'a> {
    /// There until the end.
    session: Option<Session>,
    slot: &'a Slot,
}

impl Lease<'_> {
    /// The session is not used again.
    pub fn discard(mut self) {
        self.session = None;
    }
}

impl Deref for Lease<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session.as_ref().expect("it is there until the end")
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        self.session.as_mut().expect("it is there until the end")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // What a panic left of it is not known.
        if let Some(session) = self.session.take().filter(|_| !thread::panicking()) {
            self.slot.give_back(session, Rest::Busy);
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("row_limit", &self.row_limit).finish_non_exhaustive()
    }
}
