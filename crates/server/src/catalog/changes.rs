//! The thread on which models are loaded and unloaded, one change after the other.
//!
//! It is always the same one, for the allocator's sake: glibc gives each new thread one of several heaps, and what a model
//! leaves behind in each of them adds up.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use tokio::sync::oneshot;

use crate::error::{ApiError, Cause};
use crate::{low_priority, memory};

/// So many changes may wait for one another.
const MOST: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

/// Where changes wait for their turn.
#[derive(Debug)]
pub(crate) struct Changes(SyncSender<Job>);

impl Changes {
    /// Starts the thread, which ends when this is dropped.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, jobs) = sync_channel(MOST);
        thread::Builder::new().name("volley-loader".into()).spawn(move || make_each(&jobs))?;
        Ok(Self(sender))
    }

    /// Has `change` made when it is its turn. The receiver hears what came of it, or nothing if it panicked.
    ///
    /// # Errors
    /// [`ApiError`] with status 503 where too many wait.
    pub(super) fn make(
        &self,
        change: impl FnOnce() -> Result<(), ApiError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<(), ApiError>>, ApiError> {
        let (sender, changed) = oneshot::channel();
        let job = move || {
            let result = change();
            // Also where a load failed.
            memory::give_back();
            let _ = sender.send(result);
        };
        match self.0.try_send(Box::new(job)) {
            Ok(()) => Ok(changed),
            Err(TrySendError::Full(_)) => {
                let message = format!("{MOST} loads and unloads wait for one another; try again when they are done");
                Err(ApiError::new(Cause::Unavailable, message))
            }
            Err(TrySendError::Disconnected(_)) => Err(ApiError::new(Cause::Internal, "nobody loads models any more")),
        }
    }
}

fn make_each(jobs: &Receiver<Job>) {
    low_priority::step_back();
    for job in jobs {
        // What panics is told by the hook, and must not keep the next from being made.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn changes_are_made_in_their_order_and_a_panic_is_one_s_own() {
        let changes = Changes::start().expect("a thread");
        let (made, order) = channel();
        let change = |number: u32| {
            let made = made.clone();
            changes.make(move || {
                assert_ne!(number, 1, "this one panics");
                made.send(number).expect("somebody listens");
                Err(ApiError::invalid(number, "refused"))
            })
        };
        let came: Vec<_> = (0..3).map(|number| change(number).expect("there is room").blocking_recv()).collect();
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [0, 2]);
        let told = |number: usize| came[number].clone().map(|changed| changed.expect_err("it is refused").message);
        assert_eq!((told(0), told(2)), (Ok("0: refused".into()), Ok("2: refused".into())));
        assert!(came[1].is_err(), "nothing is heard of what panicked");
    }

    #[test]
    fn more_than_may_wait_are_refused_and_the_others_are_made() {
        let changes = Changes::start().expect("a thread");
        let (begun, begins) = channel();
        let (go_on, waits) = channel::<()>();
        let first = changes.make(move || {
            begun.send(()).expect("somebody listens");
            waits.recv().expect("it may go on");
            Ok(())
        });
        begins.recv().expect("it begins");
        let waiting: Vec<_> = (0..MOST).map(|_| changes.make(|| Ok(())).expect("there is room")).collect();
        let refused = changes.make(|| Ok(())).expect_err("there is none");
        assert_eq!((refused.status().as_u16(), refused.retry_after().is_some()), (503, true));
        go_on.send(()).expect("it waits");
        for changed in [first.expect("there is room")].into_iter().chain(waiting) {
            assert_eq!(changed.blocking_recv(), Ok(Ok(())));
        }
    }
}
