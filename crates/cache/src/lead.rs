//! The two ends of a flight: the one who computes and those who wait.

use crate::cache::Inner;
use crate::flight::{Flight, Turn};
use crate::rank::Rank;
use crate::stamp::Stamp;
use bytes::Bytes;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The duty to compute a key's value. At most one exists per key, however many ask for it.
///
/// Dropping it (the caller hung up, its task panicked) passes the duty to the follower that has waited longest, or ends
/// the flight when nobody follows.
#[must_use = "dropping a lead passes it on"]
pub struct Lead<E: Clone> {
    inner: Arc<Inner<E>>,
    flight: Arc<Flight<E>>,
    landed: bool,
}

impl<E: Clone> Lead<E> {
    pub(crate) fn new(inner: Arc<Inner<E>>, flight: Arc<Flight<E>>) -> Self {
        Self { inner, flight, landed: false }
    }

    /// Stores the value and answers every follower with it.
    ///
    /// The value is kept as it is: a slice of a larger buffer keeps that whole buffer alive for as long as it is
    /// cached, so hand in bytes of their own. A value that is too large for the cache answers the followers and is not
    /// stored; neither is one that was invalidated since [`born`](Self::born).
    pub fn complete(mut self, value: Bytes) {
        self.landed = true;
        let born = self.born();
        self.inner.land(&self.flight, value, born);
    }

    /// Stores a value that was computed elsewhere and is of this birth, and answers every follower with it.
    ///
    /// # Errors
    ///
    /// The lead, if the value was invalidated since it was born: the caller still has to compute it.
    pub fn complete_found(mut self, value: Bytes, born: Stamp) -> Result<(), Self> {
        if !self.inner.coherence.is_fresh(self.flight.key(), self.flight.domain(), born) {
            return Err(self);
        }
        self.landed = true;
        self.inner.land(&self.flight, value, born);
        Ok(())
    }

    /// What was known of invalidations when this computation began: the birth of its value.
    #[must_use]
    pub fn born(&self) -> Stamp {
        self.flight.born()
    }

    /// Gives up for a reason that is the leader's own, such as its quota, its deadline or its cancellation: the
    /// follower that has waited longest leads. The same as dropping the lead, said aloud.
    pub fn fail(self) {
        drop(self);
    }

    /// Gives up for a reason that every follower would meet as well: each is told `error`, and the next look-up starts
    /// afresh.
    pub fn fail_all(mut self, error: E) {
        self.landed = true;
        self.inner.flights.land(&self.flight, Err(error), || {});
    }

    /// The highest urgency and the latest deadline among those who wait now, the leader among them.
    #[must_use]
    pub fn rank(&self) -> Rank {
        self.flight.rank()
    }

    /// Waits until someone joins who raises the flight's rank above `above`; the new rank.
    ///
    /// A leader whose work is queued awaits this beside it, to queue it anew as more urgent. Dropping the future does
    /// no harm; of two that wait at once only the later is woken.
    pub async fn raised(&self, above: Rank) -> Rank {
        poll_fn(|context| self.flight.poll_raised(above, context)).await
    }

    /// How many others wait for the value. With none, giving up disappoints nobody but the leader's own caller.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.flight.followers()
    }
}

impl<E: Clone> Drop for Lead<E> {
    fn drop(&mut self) {
        if !self.landed {
            self.inner.flights.pass_on(&self.flight);
        }
    }
}

impl<E: Clone> fmt::Debug for Lead<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lead").field("rank", &self.rank()).field("followers", &self.followers()).finish_non_exhaustive()
    }
}

/// Waits for a value that someone else computes.
///
/// A future for any async runtime. Dropping it leaves the flight, whose rank falls to that of those who stay.
#[must_use = "dropping a follow leaves the flight"]
pub struct Follow<E: Clone> {
    inner: Arc<Inner<E>>,
    /// Taken when the future is ready.
    flight: Option<Arc<Flight<E>>>,
    number: u64,
}

/// What following came to.
#[derive(Debug)]
#[must_use]
pub enum Followed<E: Clone> {
    /// The leader's value.
    Value(Bytes),
    /// The leader's error, which is everybody's.
    Failed(E),
    /// The leader gave up and this follower has waited longest: it computes now, for itself and all who still wait.
    Lead(Lead<E>),
}

impl<E: Clone> Follow<E> {
    pub(crate) fn new(inner: Arc<Inner<E>>, flight: Arc<Flight<E>>, number: u64) -> Self {
        Self { inner, flight: Some(flight), number }
    }
}

impl<E: Clone> Future for Follow<E> {
    type Output = Followed<E>;

    /// # Panics
    ///
    /// If polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Followed<E>> {
        let flight = self.flight.as_ref().expect("a follow is not polled after it was ready");
        let Poll::Ready(turn) = flight.poll_turn(self.number, context) else {
            return Poll::Pending;
        };
        let flight = self.flight.take().expect("the flight was there a moment ago");
        Poll::Ready(match turn {
            Turn::Landed(Ok(value)) => {
                self.inner.count_shared();
                Followed::Value(value)
            }
            Turn::Landed(Err(error)) => Followed::Failed(error),
            Turn::Leads => {
                self.inner.count_miss();
                flight.begin_anew(self.inner.coherence.seen());
                Followed::Lead(Lead::new(Arc::clone(&self.inner), flight))
            }
        })
    }
}

impl<E: Clone> Drop for Follow<E> {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            self.inner.flights.leave(&flight, self.number);
        }
    }
}

impl<E: Clone> fmt::Debug for Follow<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").field("number", &self.number).finish_non_exhaustive()
    }
}
