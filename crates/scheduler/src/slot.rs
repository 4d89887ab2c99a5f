//! The meeting place of a request's two halves: the caller's and the workers'.
//!
//! One byte of state decides every race between them. Its phase moves one way only:
//!
//! ```text
//! QUEUED ──caller──▶ WITHDRAWN                 (never computed, no outcome)
//!    └────worker──▶ CLAIMED ──worker──▶ DONE   (exactly one outcome)
//! ```
//!
//! Beside the phase lies the `WAITING` bit: the waiter cell holds somebody to wake. While it is clear the cell is the
//! caller's; while it is set the cell is nobody's, until the caller clears it or the worker's step to `DONE` takes it.

use std::task::Waker;

use crate::sync::{Arc, AtomicU8, Ordering, Thread, UnsafeCell};

const QUEUED: u8 = 0;
const WITHDRAWN: u8 = 1;
const CLAIMED: u8 = 2;
const DONE: u8 = 3;
const PHASE: u8 = 3;
const WAITING: u8 = 4;

/// Whom to wake when the outcome is there.
#[derive(Debug)]
pub(crate) enum Waiter {
    Task(Waker),
    Thread(Thread),
}

impl Waiter {
    pub(crate) fn wake(self) {
        match self {
            Self::Task(waker) => waker.wake(),
            Self::Thread(thread) => thread.unpark(),
        }
    }

    /// Whether waking this one wakes the other: one task that waits for several requests.
    pub(crate) fn is_same_task(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Task(this), Self::Task(other)) if this.will_wake(other))
    }
}

struct Slot<O, C> {
    /// Phase and `WAITING`. Every change is a read-modify-write: Release publishes the cell that the writer leaves
    /// (outcome or waiter), Acquire makes the cell visible to whom the change gives it.
    state: AtomicU8,
    /// Whose it is: see the module's introduction.
    waiter: UnsafeCell<Option<Waiter>>,
    /// The promise's until `DONE`, then the caller's.
    outcome: UnsafeCell<Option<O>>,
    /// What both halves know; never changes.
    context: C,
}

// SAFETY: `state` gives each cell to one half at a time (see the fields), so sharing a slot moves outcomes and waiters
// between threads and never shares one; both are `Send` (`Waiter` unconditionally).
unsafe impl<O: Send, C: Send + Sync> Sync for Slot<O, C> {}
// SAFETY: as above; a slot owns what its cells hold.
unsafe impl<O: Send, C: Send + Sync> Send for Slot<O, C> {}

/// The caller's half.
pub(crate) struct CallerHalf<O, C> {
    slot: Arc<Slot<O, C>>,
}

/// The workers' half before a batch takes it.
pub(crate) struct Promise<O, C> {
    slot: Arc<Slot<O, C>>,
}

/// The workers' half once the caller can no longer withdraw: exactly one outcome is owed.
pub(crate) struct Debt<O, C> {
    slot: Arc<Slot<O, C>>,
}

/// The two halves of a new request.
pub(crate) fn pair<O, C>(context: C) -> (CallerHalf<O, C>, Promise<O, C>) {
    let slot = Arc::new(Slot {
        state: AtomicU8::new(QUEUED),
        waiter: UnsafeCell::new(None),
        outcome: UnsafeCell::new(None),
        context,
    });
    let caller = CallerHalf { slot: Arc::clone(&slot) };
    (caller, Promise { slot })
}

impl<O, C> CallerHalf<O, C> {
    pub(crate) fn context(&self) -> &C {
        &self.slot.context
    }

    pub(crate) fn is_done(&self) -> bool {
        self.slot.state.load(Ordering::Acquire) & PHASE == DONE
    }

    /// The outcome, if it is there; once.
    pub(crate) fn take(&mut self) -> Option<O> {
        if !self.is_done() {
            return None;
        }
        // SAFETY: the phase is `DONE`, read with Acquire: the promise is through with the outcome, and `&mut self`
        // is the only caller.
        self.slot.outcome.with_mut(|outcome| unsafe { (*outcome).take() })
    }

    /// Has `waiter` woken when the outcome is there, in place of whoever waited before. False if it is there already.
    pub(crate) fn wait(&mut self, waiter: Waiter) -> bool {
        if !self.regain() {
            return false;
        }
        // SAFETY: `regain` left `WAITING` clear, so the cell is this half's, and `&mut self` the only one to use it.
        let former = self.slot.waiter.with_mut(|cell| unsafe { (*cell).replace(waiter) });
        let published = self
            .slot
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                (state & PHASE != DONE).then_some(state | WAITING)
            })
            .is_ok();
        drop(former);
        published
    }

    /// Withdraws the request. True if no worker had claimed it: none will.
    pub(crate) fn withdraw(&mut self) -> bool {
        let withdrawn = self
            .slot
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| (state & PHASE == QUEUED).then_some(WITHDRAWN))
            .is_ok();
        if withdrawn {
            self.forget_waiter();
        }
        withdrawn
    }

    /// Lets go of the waiter at once, rather than when the worker lets go of the slot: a task's waker keeps the task.
    pub(crate) fn forget_waiter(&mut self) {
        if self.regain() {
            // SAFETY: `WAITING` is clear, so the cell is this half's.
            drop(self.slot.waiter.with_mut(|cell| unsafe { (*cell).take() }));
        }
    }

    /// Takes the waiter cell back. False if the outcome is there, and the cell with the worker.
    fn regain(&mut self) -> bool {
        self.slot
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                (state & PHASE != DONE).then_some(state & !WAITING)
            })
            .is_ok()
    }
}

impl<O, C> Promise<O, C> {
    /// Takes the request for a batch, or to refuse it. None if it was withdrawn.
    pub(crate) fn claim(self) -> Option<Debt<O, C>> {
        self.slot
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
                (state & PHASE == QUEUED).then_some(CLAIMED | state & WAITING)
            })
            .ok()
            .map(|_| Debt { slot: self.slot })
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.slot.state.load(Ordering::Relaxed) & PHASE == WITHDRAWN
    }
}

impl<O, C> Debt<O, C> {
    pub(crate) fn context(&self) -> &C {
        &self.slot.context
    }

    /// Hands the outcome over; gives back whom to wake, unless it `will_wake` anyway: then its waker stays here, to be
    /// dropped where it came from.
    pub(crate) fn settle(self, outcome: O, will_wake: impl FnOnce(&Waiter) -> bool) -> Option<Waiter> {
        // SAFETY: the outcome is this half's until the swap below, and `self` is the only one of its kind.
        self.slot.outcome.with_mut(|cell| unsafe { *cell = Some(outcome) });
        let before = self.slot.state.swap(DONE, Ordering::AcqRel);
        if before & WAITING == 0 {
            return None;
        }
        // SAFETY: `WAITING` was set when the swap made the phase `DONE`, so the caller can no longer clear it.
        self.slot.waiter.with_mut(|cell| unsafe { (*cell).take_if(|waiter| !will_wake(waiter)) })
    }
}

#[cfg(all(test, loom))]
mod explored {
    use super::*;

    #[test]
    fn a_request_is_either_withdrawn_or_answered_never_both() {
        loom::model(|| {
            let (mut caller, promise) = pair::<u32, ()>(());
            let worker = loom::thread::spawn(move || promise.claim().map(|debt| debt.settle(7, |_| false).is_some()));
            let withdrawn = caller.withdraw();
            let answered = worker.join().expect("the worker ends").is_some();
            assert_ne!(withdrawn, answered);
            assert_eq!(caller.take().is_some(), answered);
            assert_eq!(caller.take(), None);
        });
    }

    #[test]
    fn a_caller_that_waits_is_woken_or_finds_the_outcome() {
        loom::model(|| {
            let (mut caller, promise) = pair::<u32, ()>(());
            let worker = loom::thread::spawn(move || {
                let debt = promise.claim().expect("nobody withdraws");
                if let Some(Waiter::Thread(thread)) = debt.settle(7, |_| false) {
                    thread.unpark();
                }
            });
            while caller.wait(Waiter::Thread(crate::sync::current_thread())) {
                crate::sync::park_thread();
                if caller.is_done() {
                    break;
                }
            }
            assert_eq!(caller.take(), Some(7));
            worker.join().expect("the worker ends");
        });
    }

    #[test]
    fn a_caller_may_change_or_forget_its_waiter_while_the_outcome_arrives() {
        loom::model(|| {
            let (mut caller, promise) = pair::<u32, ()>(());
            let worker = loom::thread::spawn(move || {
                let debt = promise.claim().expect("nobody withdraws");
                debt.settle(7, |_| false).is_some()
            });
            let first = caller.wait(Waiter::Thread(crate::sync::current_thread()));
            let second = caller.wait(Waiter::Thread(crate::sync::current_thread()));
            assert!(first || !second, "an outcome does not go away again");
            caller.forget_waiter();
            worker.join().expect("the worker ends");
            assert_eq!(caller.take(), Some(7));
        });
    }
}
