//! One wake of an async runtime per batch, instead of one per request.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::delivery::contain;
use crate::sync::{Arc, Mutex};

/// Collects the wakers of the tasks whose requests completed together, and has them woken on their own runtime.
///
/// Waking a task from a foreign thread costs an async runtime a locked queue and often a system call, per request. With
/// a handoff the worker does that once per batch: it wakes the [`forward`](Self::forward) future, and that future, on
/// the runtime's own thread, wakes the tasks. It needs no particular runtime. One handoff per runtime thread, cloned
/// into each [`Request`](crate::Request).
///
/// While no forwarding future lives, or before it is first polled, tasks are woken directly: nothing is lost.
///
/// # Examples
///
/// ```
/// use volley_scheduler::Handoff;
///
/// let handoff = Handoff::new();
/// let forward = handoff.forward();
/// // runtime.spawn(forward); then, for each request: Request::new(group, payload).handoff(&handoff)
/// # drop(forward);
/// ```
#[derive(Clone, Default)]
pub struct Handoff {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// Tasks to wake. Stays empty while there is no forwarder.
    tasks: Vec<Waker>,
    /// The forwarding future's task, once polled, and which future that is: an older one that is dropped late must not
    /// disconnect a newer one.
    forwarder: Option<(u64, Waker)>,
    /// The number of the newest forwarding future.
    generation: u64,
}

impl Handoff {
    /// A handoff without a forwarding future.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The future that wakes the tasks; spawn it on the runtime that runs them. It never ends by itself.
    ///
    /// A second one takes over from the first when it is polled.
    #[must_use = "tasks are woken one by one unless the future is polled"]
    pub fn forward(&self) -> Forward {
        let mut shared = self.shared.lock();
        shared.generation += 1;
        Forward { handoff: self.clone(), generation: shared.generation, tasks: Vec::new() }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Hands tasks over to be woken; takes all of them out of `tasks`.
    pub(crate) fn deliver(&self, tasks: &mut Vec<Waker>) {
        let forwarder = {
            let mut shared = self.shared.lock();
            let forwarder = shared.forwarder.as_ref().map(|(_, waker)| waker.clone());
            if forwarder.is_some() {
                let already_woken = !shared.tasks.is_empty();
                shared.tasks.append(tasks);
                if already_woken {
                    return;
                }
            }
            forwarder
        };
        match forwarder {
            Some(forwarder) if contain(|| forwarder.wake_by_ref()) => {}
            // Nobody will poll it: its tasks are not to wait for that.
            Some(_) => {
                let mut tasks = std::mem::take(&mut self.shared.lock().tasks);
                wake_all(&mut tasks);
            }
            None => wake_all(tasks),
        }
    }
}

/// Wakes tasks. One whose waker panics does not keep the others waiting.
fn wake_all(tasks: &mut Vec<Waker>) {
    for task in tasks.drain(..) {
        contain(|| task.wake());
    }
}

impl fmt::Debug for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handoff").finish_non_exhaustive()
    }
}

/// The future that wakes the tasks of a [`Handoff`]. Dropping it returns to waking them directly.
pub struct Forward {
    handoff: Handoff,
    generation: u64,
    /// Kept for its memory: each poll exchanges it for the full one.
    tasks: Vec<Waker>,
}

impl Future for Forward {
    type Output = Infallible;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Infallible> {
        let this = &mut *self;
        {
            let mut shared = this.handoff.shared.lock();
            if shared.generation == this.generation {
                match &mut shared.forwarder {
                    Some((generation, known)) => {
                        *generation = this.generation;
                        known.clone_from(context.waker());
                    }
                    unknown => *unknown = Some((this.generation, context.waker().clone())),
                }
            }
            std::mem::swap(&mut shared.tasks, &mut this.tasks);
        }
        wake_all(&mut this.tasks);
        Poll::Pending
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let mut shared = self.handoff.shared.lock();
        if shared.forwarder.as_ref().is_some_and(|&(generation, _)| generation == self.generation) {
            let former = shared.forwarder.take();
            let mut tasks = std::mem::take(&mut shared.tasks);
            drop(shared);
            contain(|| drop(former));
            wake_all(&mut tasks);
        }
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn wakers(task: &Arc<Count>, n: usize) -> Vec<Waker> {
        vec![Waker::from(Arc::clone(task)); n]
    }

    #[test]
    fn a_batch_wakes_the_forwarder_once_and_the_forwarder_wakes_the_tasks() {
        let (task, forwarder) = (Arc::<Count>::default(), Arc::<Count>::default());
        let handoff = Handoff::new();
        let mut forward = std::pin::pin!(handoff.forward());
        let waker = Waker::from(Arc::clone(&forwarder));
        let mut context = Context::from_waker(&waker);
        assert!(forward.as_mut().poll(&mut context).is_pending());

        handoff.deliver(&mut wakers(&task, 5));
        handoff.deliver(&mut wakers(&task, 3));
        assert_eq!((forwarder.get(), task.get()), (1, 0));
        assert!(forward.as_mut().poll(&mut context).is_pending());
        assert_eq!((forwarder.get(), task.get()), (1, 8));
    }

    #[test]
    fn tasks_are_woken_directly_before_the_forwarder_lives_and_after() {
        let task = Arc::<Count>::default();
        let handoff = Handoff::new();
        handoff.deliver(&mut wakers(&task, 2));
        assert_eq!(task.get(), 2);

        let mut forward = Box::pin(handoff.forward());
        assert!(forward.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        handoff.deliver(&mut wakers(&task, 2));
        assert_eq!(task.get(), 2);
        drop(forward);
        assert_eq!(task.get(), 4);
        handoff.deliver(&mut wakers(&task, 2));
        assert_eq!(task.get(), 6);
    }

    #[test]
    fn a_forwarder_that_is_gone_before_its_successor_is_polled_leaves_tasks_to_be_woken_directly() {
        let task = Arc::<Count>::default();
        let handoff = Handoff::new();
        let mut older = Box::pin(handoff.forward());
        assert!(older.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let _newer = handoff.forward();
        drop(older);
        handoff.deliver(&mut wakers(&task, 1));
        assert_eq!(task.get(), 1);
    }

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }

    #[test]
    fn a_waker_that_panics_keeps_nobody_else_waiting() {
        let task = Arc::<Count>::default();
        let handoff = Handoff::new();
        let mut tasks = vec![Waker::from(Arc::new(Panics))];
        tasks.append(&mut wakers(&task, 2));
        handoff.deliver(&mut tasks);
        assert_eq!(task.get(), 2);

        let mut forward = Box::pin(handoff.forward());
        let forwarder = Waker::from(Arc::new(Panics));
        assert!(forward.as_mut().poll(&mut Context::from_waker(&forwarder)).is_pending());
        handoff.deliver(&mut wakers(&task, 1));
        handoff.deliver(&mut wakers(&task, 1));
        assert_eq!(task.get(), 4);
    }

    #[test]
    fn an_older_forwarder_dropped_late_does_not_disconnect_the_newer() {
        let task = Arc::<Count>::default();
        let handoff = Handoff::new();
        let older = handoff.forward();
        let mut newer = Box::pin(handoff.forward());
        assert!(newer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(older);
        handoff.deliver(&mut wakers(&task, 1));
        assert_eq!(task.get(), 0);
        drop(newer);
        assert_eq!(task.get(), 1);
    }
}
