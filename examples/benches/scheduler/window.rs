//! Submit to completion: producers that keep a window of requests under way, each of them polled.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;

/// How many requests each producer keeps under way.
pub(crate) const WINDOW: usize = 1_024;
/// How many requests a producer finishes between two looks at the clock's flag.
const STRIDE: u64 = 64;
/// Time to learn and to fill the caches, not counted.
const WARM_UP: Duration = Duration::from_millis(200);

/// Something that batches: takes a number, and answers with it.
pub(crate) trait Batcher: Sync {
    /// The answer to come.
    type Answer: Future<Output = u64> + Unpin + Send;

    /// Takes a request. There is room for every producer's window.
    fn submit(&self, value: u64) -> Self::Answer;
}

/// Wakes a producer that waits for its oldest request.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Requests per second that `producers` threads get through `batcher`, measured for `duration`.
pub(crate) fn requests_per_second(batcher: &impl Batcher, producers: usize, duration: Duration) -> f64 {
    let stop = AtomicBool::new(false);
    let finished: Vec<_> = (0..producers).map(|_| CachePadded::new(AtomicU64::new(0))).collect();
    let total = || finished.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
    thread::scope(|scope| {
        for count in &finished {
            let stop = &stop;
            scope.spawn(move || produce(batcher, stop, count));
        }
        thread::sleep(WARM_UP);
        let (before, start) = (total(), Instant::now());
        thread::sleep(duration);
        let (after, took) = (total(), start.elapsed());
        stop.store(true, Ordering::Relaxed);
        (after - before) as f64 / took.as_secs_f64()
    })
}

fn produce(batcher: &impl Batcher, stop: &AtomicBool, finished: &AtomicU64) {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut window = VecDeque::with_capacity(WINDOW);
    let (mut value, mut done) = (0, 0);
    while !stop.load(Ordering::Relaxed) || !window.is_empty() {
        while window.len() < WINDOW && !stop.load(Ordering::Relaxed) {
            let mut answer = batcher.submit(value);
            match Pin::new(&mut answer).poll(&mut context) {
                Poll::Ready(answered) => done += check(answered, value),
                Poll::Pending => window.push_back((answer, value)),
            }
            value += 1;
        }
        let before = window.len();
        while let Some((answer, expected)) = window.front_mut() {
            let Poll::Ready(answered) = Pin::new(answer).poll(&mut context) else { break };
            done += check(answered, *expected);
            window.pop_front();
            if done % STRIDE == 0 {
                finished.store(done, Ordering::Relaxed);
            }
        }
        if window.len() == before && before > 0 {
            thread::park();
        }
    }
}

/// One request done; every answer is looked at.
fn check(answered: u64, expected: u64) -> u64 {
    assert_eq!(answered, expected, "the answer of another request");
    1
}
