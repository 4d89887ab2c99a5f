//! What one submit takes while many producers submit at a steady pace.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use crossbeam::sync::Parker;

use crate::rivals::{Volley, answer};

const PRODUCERS: u32 = 16;
const LANE_CAPACITY: usize = 16_384;
/// The pace with an awake leader, all producers together, in requests a second.
const BUSY_PACE: u32 = 200_000;
/// The pace that lets the leader fall asleep between any two requests.
const QUIET_PACE: u32 = 2_000;
/// A producer sleeps this long between the requests that fell due meanwhile.
const TICK: Duration = Duration::from_micros(500);

/// How many of its latest requests a producer keeps: by the time it drops a ticket, it was answered.
const KEPT: usize = 64;

/// A producer that lags this far behind was stopped from outside, with all the rest: the schedule moves on with it.
const STANDSTILL: Duration = Duration::from_millis(50);

/// The 99th percentiles of one round, in microseconds.
pub(crate) struct Round {
    /// The harness's own: a push into a bare queue at the busy pace.
    pub(crate) floor: f64,
    /// The leader executes or looks for work whenever a request comes.
    pub(crate) awake: f64,
    /// The leader does nothing to stay awake: some submits wake it.
    pub(crate) mixed: f64,
    /// The leader sleeps when a request comes.
    pub(crate) waking: f64,
    /// Batches per request at the quiet pace: 1 if each request found the leader asleep or on its way there.
    pub(crate) wakes: f64,
    /// The machine's own: waking a thread that does nothing but park again, at the quiet pace.
    pub(crate) unpark: f64,
}

/// Measures each case for `duration`.
pub(crate) fn round(duration: Duration) -> Round {
    let queue = ArrayQueue::new(LANE_CAPACITY);
    let floor = p99(&mut paced(BUSY_PACE, duration, |value| {
        // Nobody takes anything out: full is as good as taken, the oldest makes room.
        queue.force_push(Box::new((value, Instant::now())))
    }));

    let volley = Volley::start(LANE_CAPACITY);
    let mixed = p99(&mut paced(BUSY_PACE, duration, |value| volley.ticket(value)));
    drop(volley);

    let batches = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&batches);
    let volley = Volley::with_executor(LANE_CAPACITY, move |batch| {
        counted.fetch_add(1, Ordering::Relaxed);
        answer(batch);
    });
    let mut quiet = paced(QUIET_PACE, duration, |value| volley.ticket(value));
    drop(volley);
    let wakes = batches.load(Ordering::Relaxed) as f64 / quiet.len() as f64;

    Round { floor, awake: awake(duration), mixed, waking: p99(&mut quiet), wakes, unpark: unpark(duration) }
}

/// Wakes a thread that parks again at once, as the leader's sleep and its waking do at the least.
fn unpark(duration: Duration) -> f64 {
    let parker = Parker::new();
    let unparker = parker.unparker().clone();
    let ended = Arc::new(AtomicBool::new(false));
    let has_ended = Arc::clone(&ended);
    let sleeper = thread::spawn(move || {
        while !has_ended.load(Ordering::Relaxed) {
            parker.park();
        }
    });
    let mut quiet = paced(QUIET_PACE, duration, |_| unparker.unpark());
    ended.store(true, Ordering::Relaxed);
    unparker.unpark();
    sleeper.join().expect("it only sleeps");
    p99(&mut quiet)
}

/// The executor returns only when more waits, so the worker never rests.
fn awake(duration: Duration) -> f64 {
    let (tell, told) = std::sync::mpsc::channel::<volley_scheduler::Scheduler<u64, u64>>();
    let mut scheduler = None;
    let volley = Volley::with_executor(LANE_CAPACITY, move |batch| {
        answer(batch);
        let scheduler = scheduler.get_or_insert_with(|| told.recv().expect("told once"));
        let end = Instant::now() + Duration::from_millis(20);
        while scheduler.depth().iter().sum::<usize>() == 0 && Instant::now() < end {
            thread::yield_now();
        }
    });
    tell.send(volley.scheduler.clone()).expect("the worker listens");
    p99(&mut paced(BUSY_PACE, duration, |value| volley.ticket(value)))
}

/// Nanoseconds of each submit, from `PRODUCERS` threads at `pace` requests a second together. What `submit` returns is
/// dropped later, outside the clock.
fn paced<T>(pace: u32, duration: Duration, submit: impl Fn(u64) -> T + Sync) -> Vec<u64> {
    let gap = Duration::from_secs(1) * PRODUCERS / pace;
    let barrier = Barrier::new(PRODUCERS as usize);
    let produce = |number: u32| {
        let mut taken = Vec::with_capacity((duration.as_nanos() / gap.as_nanos()) as usize + 1);
        let mut kept = VecDeque::with_capacity(2 * KEPT);
        barrier.wait();
        let start = Instant::now();
        let mut due = start + gap * number / PRODUCERS;
        while due < start + duration {
            let before = Instant::now();
            if before < due {
                kept.drain(..kept.len().saturating_sub(KEPT));
                thread::sleep((due - before).max(TICK));
                continue;
            }
            if before > due + STANDSTILL {
                due = before;
            }
            let ticket = submit(taken.len() as u64);
            taken.push(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
            kept.push_back(ticket);
            due += gap;
        }
        taken
    };
    thread::scope(|scope| {
        let produce = &produce;
        let producers: Vec<_> = (0..PRODUCERS).map(|number| scope.spawn(move || produce(number))).collect();
        producers.into_iter().flat_map(|producer| producer.join().expect("a producer does not panic")).collect()
    })
}

fn p99(nanos: &mut [u64]) -> f64 {
    let index = nanos.len() * 99 / 100;
    *nanos.select_nth_unstable(index).1 as f64 / 1e3
}
