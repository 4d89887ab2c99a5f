//! What a Rust user would take instead, each as strong as its user could reasonably make it: work-conserving, and the
//! same largest batch.

use std::collections::BinaryHeap;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use crossbeam::queue::ArrayQueue;
use tokio::sync::{mpsc, oneshot};
use volley_scheduler::{Batch, Config, GroupConfig, GroupId, Request, Scheduler, Ticket};

use crate::window::Batcher;

/// The largest batch of every contestant.
pub(crate) const MAX_BATCH: usize = 64;

/// This project's scheduler with one worker, its timekeeper and its default policy.
pub(crate) struct Volley {
    pub(crate) scheduler: Scheduler<u64, u64>,
    pub(crate) group: GroupId,
    threads: Vec<JoinHandle<()>>,
}

/// A ticket's value, without its timings.
pub(crate) struct Value(Ticket<u64>);

impl Volley {
    pub(crate) fn start(capacity: usize) -> Self {
        Self::with_executor(capacity, answer)
    }

    pub(crate) fn with_executor(
        capacity: usize,
        mut execute: impl FnMut(&mut Batch<u64, u64>) + Send + 'static,
    ) -> Self {
        let config = Config { lane_capacity: positive(capacity), ..Config::default() };
        let (scheduler, mut workers) = Scheduler::new(config, NonZeroUsize::MIN);
        let group = scheduler.add_group(GroupConfig::up_to(positive(MAX_BATCH)));
        let worker = workers.pop().expect("one worker was asked for");
        let timekeeper = scheduler.timekeeper().expect("nobody asked for it before");
        let worker = thread::spawn(move || worker.run(|batch: &mut _| execute(batch)));
        let threads = vec![worker, thread::spawn(move || timekeeper.run())];
        Self { scheduler, group, threads }
    }

    pub(crate) fn ticket(&self, value: u64) -> Ticket<u64> {
        self.scheduler.submit(Request::new(self.group, value)).expect("there is room")
    }
}

impl Drop for Volley {
    fn drop(&mut self) {
        self.scheduler.close();
        self.threads.drain(..).for_each(|thread| join(Some(thread)));
    }
}

/// The executor that does nothing.
pub(crate) fn answer(batch: &mut Batch<u64, u64>) {
    for i in 0..batch.len() {
        batch.complete(i, *batch.payload(i));
    }
}

impl Future for Value {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        Pin::new(&mut self.0).poll(context).map(|outcome| outcome.result.expect("the executor answers"))
    }
}

impl Batcher for Volley {
    type Answer = Value;

    fn submit(&self, value: u64) -> Value {
        Value(self.ticket(value))
    }
}

/// A request of the rivals that bring no answers of their own.
type Asked = (u64, oneshot::Sender<u64>);

/// An answer through tokio's one-shot channel.
pub(crate) struct OneShot(oneshot::Receiver<u64>);

impl Future for OneShot {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        Pin::new(&mut self.0).poll(context).map(|value| value.expect("the batcher answers"))
    }
}

fn answer_all(batch: &mut Vec<Asked>) {
    for (value, promise) in batch.drain(..) {
        // A caller that is gone needs no answer.
        let _ = promise.send(value);
    }
}

/// A bounded tokio channel whose receiver takes what there is, up to a batch, on a runtime of its own thread.
pub(crate) struct TokioMpsc {
    sender: Option<mpsc::Sender<Asked>>,
    batcher: Option<JoinHandle<()>>,
}

impl TokioMpsc {
    pub(crate) fn start(capacity: usize) -> Self {
        let (sender, mut receiver) = mpsc::channel(capacity);
        let batcher = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
            runtime.block_on(async {
                let mut batch = Vec::with_capacity(MAX_BATCH);
                while receiver.recv_many(&mut batch, MAX_BATCH).await > 0 {
                    answer_all(&mut batch);
                }
            });
        });
        Self { sender: Some(sender), batcher: Some(batcher) }
    }
}

/// The same channel with the usual loop: the first request starts a clock, the batch goes when it is full or the clock
/// has run down. Waits as long as the scheduler's default would.
pub(crate) struct TokioWaiting(TokioMpsc);

impl TokioWaiting {
    pub(crate) fn start(capacity: usize) -> Self {
        let max_wait = Config::default().max_wait;
        let (sender, mut receiver) = mpsc::channel(capacity);
        let batcher = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.expect("a runtime starts").block_on(async {
                let mut batch = Vec::with_capacity(MAX_BATCH);
                while let Some(first) = receiver.recv().await {
                    batch.push(first);
                    let end = tokio::time::Instant::now() + max_wait;
                    while batch.len() < MAX_BATCH
                        && let Ok(Some(next)) = tokio::time::timeout_at(end, receiver.recv()).await
                    {
                        batch.push(next);
                    }
                    answer_all(&mut batch);
                }
            });
        });
        Self(TokioMpsc { sender: Some(sender), batcher: Some(batcher) })
    }
}

impl Batcher for TokioWaiting {
    type Answer = OneShot;

    fn submit(&self, value: u64) -> OneShot {
        self.0.submit(value)
    }
}

impl Batcher for TokioMpsc {
    type Answer = OneShot;

    fn submit(&self, value: u64) -> OneShot {
        let (promise, answer) = oneshot::channel();
        let sender = self.sender.as_ref().expect("open until dropped");
        sender.try_send((value, promise)).expect("there is room");
        OneShot(answer)
    }
}

impl Drop for TokioMpsc {
    fn drop(&mut self) {
        self.sender = None;
        join(self.batcher.take());
    }
}

/// The crate `batched-fn`. Its delay counts in whole milliseconds and zero makes every batch one request, so one it is;
/// a full window never lets it pass.
pub(crate) struct BatchedFn;

impl Batcher for BatchedFn {
    type Answer = Pin<Box<dyn Future<Output = u64> + Send>>;

    fn submit(&self, value: u64) -> Self::Answer {
        let call = batched_fn::batched_fn! {
            handler = |batch: Vec<u64>| -> Vec<u64> { batch };
            config = { max_batch_size: MAX_BATCH, max_delay: 1 };
            context = {};
        };
        let answer = call(value);
        Box::pin(async move { answer.await.expect("the handler answers") })
    }
}

/// A binary heap under a mutex, in order of priority and arrival, with a condition variable for its one worker.
pub(crate) struct MutexHeap {
    shared: Arc<Locked>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Locked {
    heap: Mutex<Heap>,
    filled: Condvar,
}

#[derive(Default)]
struct Heap {
    requests: BinaryHeap<Ordered>,
    sequence: u64,
    closed: bool,
}

/// The oldest comes first out of a heap whose greatest comes first.
struct Ordered {
    sequence: u64,
    asked: Asked,
}

impl MutexHeap {
    pub(crate) fn start() -> Self {
        let shared = Arc::<Locked>::default();
        let of_worker = Arc::clone(&shared);
        let worker = thread::spawn(move || {
            let mut batch = Vec::with_capacity(MAX_BATCH);
            while of_worker.take(&mut batch) {
                answer_all(&mut batch);
            }
        });
        Self { shared, worker: Some(worker) }
    }
}

impl Locked {
    /// Waits for requests and takes up to a batch of them. False at the end.
    fn take(&self, batch: &mut Vec<Asked>) -> bool {
        let heap = self.heap.lock().expect("no holder panics");
        let empty = |heap: &mut Heap| heap.requests.is_empty() && !heap.closed;
        let mut heap = self.filled.wait_while(heap, empty).expect("no holder panics");
        while batch.len() < MAX_BATCH
            && let Some(next) = heap.requests.pop()
        {
            batch.push(next.asked);
        }
        !batch.is_empty()
    }
}

impl Batcher for MutexHeap {
    type Answer = OneShot;

    fn submit(&self, value: u64) -> OneShot {
        let (promise, answer) = oneshot::channel();
        let was_empty = {
            let mut heap = self.shared.heap.lock().expect("no holder panics");
            heap.sequence += 1;
            let was_empty = heap.requests.is_empty();
            let sequence = heap.sequence;
            heap.requests.push(Ordered { sequence, asked: (value, promise) });
            was_empty
        };
        if was_empty {
            self.shared.filled.notify_one();
        }
        OneShot(answer)
    }
}

impl Drop for MutexHeap {
    fn drop(&mut self) {
        self.shared.heap.lock().expect("no holder panics").closed = true;
        self.shared.filled.notify_one();
        join(self.worker.take());
    }
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.sequence.cmp(&self.sequence)
    }
}

/// The floor: numbers through crossbeam's `ArrayQueue`, from one thread to another, with no answer at all.
pub(crate) fn bare_queue(capacity: usize, numbers: u64) -> f64 {
    let queue = ArrayQueue::new(capacity);
    let start = std::time::Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            for mut number in 0..numbers {
                while let Err(refused) = queue.push(number) {
                    number = refused;
                    thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < numbers {
            match queue.pop() {
                Some(number) => {
                    assert_eq!(number, next, "one producer's numbers come in order");
                    next += 1;
                }
                None => thread::yield_now(),
            }
        }
    });
    numbers as f64 / start.elapsed().as_secs_f64()
}

pub(crate) fn positive(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("positive")
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread {
        thread.join().expect("a batcher does not panic");
    }
}
