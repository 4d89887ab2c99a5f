//! How long a lone caller waits, and how soon a hopeless one is told.

use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use volley_scheduler::{Batch, Config, Failure, GroupConfig, Request, Scheduler};

use crate::rivals::{MAX_BATCH, Volley, answer, positive};

const ROUND_TRIPS: usize = 5_000;
/// How long the one worker executes while deadlines pass in the queue.
const BUSY_FOR: Duration = Duration::from_millis(120);
const HOPELESS: u32 = 200;
/// How many turns from one batch to the next are timed, what a batch takes, and how many requests wait at first.
const TURNS: usize = 200;
const DEVICE_TIME: Duration = Duration::from_micros(400);
const LANE: usize = 32 * MAX_BATCH;

/// The median of submit to wake-up of a caller that parks, alone, in microseconds.
pub(crate) fn parked_round_trip() -> f64 {
    let volley = Volley::start(64);
    let mut nanos: Vec<_> = (0..ROUND_TRIPS)
        .map(|i| {
            let start = Instant::now();
            let outcome = volley.ticket(i as u64).wait();
            assert!(outcome.result.is_ok(), "the executor answers");
            start.elapsed().as_nanos()
        })
        .collect();
    *nanos.select_nth_unstable(ROUND_TRIPS / 2).1 as f64 / 1e3
}

/// The median of the time from the end of one batch to the beginning of the next while more waits than a batch holds, in
/// microseconds: all that choosing the next batch before the device is free could save.
pub(crate) fn turnaround() -> f64 {
    let (mut ended, mut nanos) = (None, Vec::with_capacity(TURNS));
    let (tell, told) = mpsc::channel();
    let volley = Volley::with_executor(LANE, move |batch: &mut Batch<u64, u64>| {
        let is_full = batch.len() == MAX_BATCH;
        if let Some(ended) = ended.filter(|_| is_full) {
            nanos.push(batch.started().saturating_duration_since(ended).as_nanos());
        }
        answer(batch);
        // Time enough for the queue to fill again, as a device would take.
        thread::sleep(DEVICE_TIME);
        if nanos.len() == TURNS {
            tell.send(std::mem::take(&mut nanos)).expect("the caller listens");
        }
        ended = Some(Instant::now());
    });
    let mut nanos = loop {
        let tickets: Vec<_> = (0..LANE as u64).map(|value| volley.ticket(value)).collect();
        for ticket in tickets {
            assert!(ticket.wait().result.is_ok(), "the executor answers");
        }
        if let Ok(nanos) = told.try_recv() {
            break nanos;
        }
    };
    *nanos.select_nth_unstable(TURNS / 2).1 as f64 / 1e3
}

/// Milliseconds from a queued request's deadline to the moment its caller knows, the 99th percentile, while the only
/// worker executes all along. Nothing was learned of what a batch costs, so it is the deadline that makes it hopeless.
pub(crate) fn drop_notice_p99() -> f64 {
    let (scheduler, mut workers) = Scheduler::new(Config::default(), NonZeroUsize::MIN);
    let group = scheduler.add_group(GroupConfig::up_to(positive(8)));
    let (started, has_started) = mpsc::channel();
    let worker = workers.pop().expect("one worker was asked for");
    let worker = thread::spawn(move || {
        worker.run(|batch: &mut Batch<u32, u32>| {
            started.send(()).expect("the caller listens");
            thread::sleep(BUSY_FOR);
            batch.complete(0, 0);
        });
    });
    let timekeeper = scheduler.timekeeper().expect("nobody asked for it before");
    let timekeeper = thread::spawn(move || timekeeper.run());
    let blocker = scheduler.submit(Request::new(group, 0)).expect("there is room");
    has_started.recv().expect("the worker starts");
    let start = Instant::now();
    let span = BUSY_FOR * 3 / 4;
    let waiting: Vec<_> = (1..=HOPELESS)
        .map(|i| {
            let deadline = start + Duration::from_millis(5) + span * i / HOPELESS;
            let ticket = scheduler.submit(Request::new(group, i).deadline(deadline)).expect("there is room");
            (ticket, deadline)
        })
        .collect();
    let mut late: Vec<_> = waiting
        .into_iter()
        .map(|(ticket, deadline)| {
            assert_eq!(ticket.wait().result, Err(Failure::DeadlineExceeded), "the worker was busy all along");
            Instant::now().saturating_duration_since(deadline).as_nanos()
        })
        .collect();
    assert_eq!(blocker.wait().result, Ok(0));
    scheduler.close();
    worker.join().expect("the worker ends");
    timekeeper.join().expect("the timekeeper ends");
    let index = late.len() * 99 / 100;
    *late.select_nth_unstable(index).1 as f64 / 1e6
}
