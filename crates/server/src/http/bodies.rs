//! How many bytes of bodies are there at a time, over all requests.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{ApiError, Cause};

/// Counts the bytes that have arrived of requests that are not answered yet. Shared by all listeners.
///
/// Bytes count when they are there: what is only announced costs a caller nothing, and must not keep others out.
#[derive(Debug, Default)]
pub(super) struct Bodies(AtomicUsize);

/// What one request has of them; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    of: Arc<Bodies>,
    limit: usize,
    /// Written by whoever reads the request. All orderings are relaxed: counts, on which nothing else hangs.
    bytes: AtomicUsize,
}

impl Bodies {
    /// Nothing yet, of `limit` bytes over all requests.
    pub(super) fn hold(self: &Arc<Self>, limit: NonZeroUsize) -> Held {
        Held { of: Arc::clone(self), limit: limit.get(), bytes: AtomicUsize::new(0) }
    }
}

impl Held {
    /// Takes room for `bytes` that have arrived, unless there is none for them and for the `announced` ones after them.
    ///
    /// # Errors
    /// [`ApiError`] with status 503; nothing is taken then.
    pub(crate) fn take(&self, bytes: usize, announced: usize) -> Result<(), ApiError> {
        let before = self.of.0.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes).saturating_add(announced) > self.limit {
            self.of.0.fetch_sub(bytes, Ordering::Relaxed);
            let message = format!(
                "body: no room beside those that are being answered; {} bytes may be there at a time; try again, or raise \
                 limits.body_bytes",
                self.limit
            );
            return Err(ApiError::new(Cause::Overloaded, message));
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Takes room for what is missing to `bytes`: a message is read, and larger than what arrived of it.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub(crate) fn reach(&self, bytes: usize) -> Result<(), ApiError> {
        self.take(bytes.saturating_sub(self.bytes.load(Ordering::Relaxed)), 0)
    }

    /// Gives all of it back.
    pub(crate) fn let_go(&self) {
        self.of.0.fetch_sub(self.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_counted_over_all_requests_and_given_back_once() {
        let bodies = Arc::new(Bodies::default());
        let hold = || bodies.hold(NonZeroUsize::new(100).expect("not zero"));
        let (one, two) = (hold(), hold());
        assert!(one.take(60, 40).is_ok(), "what is announced fits");
        assert!(two.take(30, 11).is_err(), "what is announced does not");
        assert!(two.take(30, 10).is_ok() && one.take(10, 0).is_ok(), "what was refused took nothing");
        let refusal = two.take(1, 0).expect_err("there are as many as there may be");
        assert_eq!((refusal.status().as_u16(), refusal.retry_after().is_some()), (503, true));
        one.let_go();
        assert!(one.reach(20).is_ok() && one.reach(10).is_ok() && one.reach(70).is_ok() && one.reach(71).is_err());
        drop(one);
        assert!(two.take(70, 0).is_ok() && two.take(1, 0).is_err(), "given back once, and not twice");
        drop(two);
        assert_eq!(bodies.0.load(Ordering::Relaxed), 0);
    }
}
