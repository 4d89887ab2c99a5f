//! Where models are loaded and unloaded while others serve, one change after the other.
//!
//! Each change has a thread of low priority, which ends before the next begins: glibc gives a thread one of several heaps,
//! the one that was given up last, and what models leave behind in several of them would add up. It gives back the free end
//! of its heap before it ends.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use tokio::sync::oneshot;

use crate::error::{ApiError, Cause};
use crate::{low_priority, memory};

/// So many changes may be there at a time: one under way, and those that wait for it.
const MOST: usize = 16;

type Changed = Result<(), ApiError>;

/// A change, and who waits for it.
struct Job {
    change: Box<dyn FnOnce() -> Changed + Send>,
    asked: oneshot::Sender<Changed>,
}

/// Where changes wait for their turn.
#[derive(Debug)]
pub(crate) struct Changes(SyncSender<Job>);

impl Changes {
    /// Starts the thread that sees to them, which ends when this is dropped. With `step_back`, changes are made at low
    /// priority; threads that they start keep it.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn start(step_back: bool) -> io::Result<Self> {
        let (sender, jobs) = sync_channel(MOST - 1);
        thread::Builder::new().name("volley-changes".into()).spawn(move || make_each(&jobs, step_back))?;
        Ok(Self(sender))
    }

    /// Has `change` made when it is its turn. The receiver hears what came of it, or nothing if it panicked.
    ///
    /// # Errors
    /// [`ApiError`] with status 503 where too many wait.
    pub(super) fn make(
        &self,
        change: impl FnOnce() -> Changed + Send + 'static,
    ) -> Result<oneshot::Receiver<Changed>, ApiError> {
        let (asked, changed) = oneshot::channel();
        match self.0.try_send(Job { change: Box::new(change), asked }) {
            Ok(()) => Ok(changed),
            Err(TrySendError::Full(_)) => {
                let message = format!("{MOST} loads and unloads wait for one another; try again when they are done");
                Err(ApiError::new(Cause::Unavailable, message))
            }
            Err(TrySendError::Disconnected(_)) => Err(ApiError::new(Cause::Internal, "nobody loads models any more")),
        }
    }
}

fn make_each(jobs: &Receiver<Job>, step_back: bool) {
    for Job { change, asked } in jobs {
        let change = move || {
            if step_back {
                low_priority::step_back();
            }
            let result = change();
            memory::give_back_end();
            result
        };
        let changing = thread::Builder::new().name("volley-change".into()).spawn(change);
        let result = match changing.map(thread::JoinHandle::join) {
            Ok(Ok(result)) => result,
            // The panic was told by the hook, and whoever asked hears nothing.
            Ok(Err(_)) => continue,
            Err(error) => Err(ApiError::new(Cause::Internal, format!("no thread to load or unload it on: {error}"))),
        };
        // Also where a load failed. Here, because who is let run seldom must not hold what all allocate from.
        if !matches!(&result, Err(error) if error.cause == Cause::NotFound) {
            memory::give_back();
        }
        let _ = asked.send(result);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn changes_are_made_in_their_order_and_a_panic_is_one_s_own() {
        let changes = Changes::start(true).expect("a thread");
        let (made, order) = channel();
        let change = |number: u32| {
            let made = made.clone();
            changes.make(move || {
                assert_ne!(number, 1, "this one panics");
                made.send(number).expect("somebody listens");
                Err(ApiError::invalid(number, "refused"))
            })
        };
        let asked: Vec<_> = (0..3).map(|number| change(number).expect("there is room")).collect();
        let came: Vec<_> = asked.into_iter().map(oneshot::Receiver::blocking_recv).collect();
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [0, 2]);
        let told = |number: usize| came[number].clone().map(|changed| changed.expect_err("it is refused").message);
        assert_eq!((told(0), told(2)), (Ok("0: refused".into()), Ok("2: refused".into())));
        assert!(came[1].is_err(), "nothing is heard of what panicked");
    }

    #[test]
    fn more_than_may_wait_are_refused_and_the_others_are_made() {
        let changes = Changes::start(false).expect("a thread");
        let (begun, begins) = channel();
        let (go_on, waits) = channel::<()>();
        let first = changes.make(move || {
            begun.send(()).expect("somebody listens");
            waits.recv().expect("it may go on");
            Ok(())
        });
        begins.recv().expect("it begins");
        let waiting: Vec<_> = (1..MOST).map(|_| changes.make(|| Ok(())).expect("there is room")).collect();
        let refused = changes.make(|| Ok(())).expect_err("there is none");
        assert_eq!((refused.status().as_u16(), refused.retry_after().is_some()), (503, true));
        go_on.send(()).expect("it waits");
        for changed in [first.expect("there is room")].into_iter().chain(waiting) {
            assert_eq!(changed.blocking_recv(), Ok(Ok(())));
        }
    }
}
