//! Every interleaving of the whole scheduler, on tiny capacities. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p volley-scheduler --release --test loom`.

#![cfg(loom)]

use std::num::NonZeroUsize;
use std::time::Duration;

use loom::thread;
use volley_scheduler::{Batch, Config, Failure, GroupConfig, GroupId, Policy, Request, Scheduler, Worker};

/// Explores with at most this many preemptions, unless `LOOM_MAX_PREEMPTIONS` says otherwise: most bugs need one or
/// two, and each more multiplies the time.
const PREEMPTIONS: usize = 2;

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(model);
}

/// One lane place, one row a batch: every path that waits for room or for an end is a short one.
fn tiny(workers: usize) -> (Scheduler<u32, u32>, Vec<Worker<u32, u32>>, GroupId) {
    // Loom repeats each step exactly, so nothing may depend on how long a run takes by the clock: nothing ages.
    let aging_interval = Duration::from_hours(24);
    let config =
        Config { lane_capacity: NonZeroUsize::MIN, policy: Policy::Eager, aging_interval, ..Config::default() };
    let (scheduler, workers) = Scheduler::new(config, NonZeroUsize::new(workers).expect("positive"));
    let group = scheduler.add_group(GroupConfig::up_to(NonZeroUsize::MIN));
    (scheduler, workers, group)
}

fn run(worker: Worker<u32, u32>) {
    worker.run(|batch: &mut Batch<u32, u32>| {
        for i in 0..batch.len() {
            let value = *batch.payload(i) + 1;
            batch.complete(i, value);
        }
    });
}

#[test]
fn a_submit_always_reaches_a_worker_that_goes_to_rest() {
    explore(|| {
        let (scheduler, mut workers, group) = tiny(1);
        let worker = workers.pop().expect("one worker");
        let worker = thread::spawn(move || run(worker));
        let ticket = scheduler.submit(Request::new(group, 1)).expect("there is room");
        assert_eq!(ticket.wait().result, Ok(2));
        drop(scheduler);
        worker.join().expect("the worker ends");
    });
}

#[test]
fn closing_races_submitting_and_every_accepted_request_is_answered() {
    explore(|| {
        let (scheduler, mut workers, group) = tiny(1);
        let worker = workers.pop().expect("one worker");
        let other = scheduler.clone();
        let submitter = thread::spawn(move || match other.submit(Request::new(group, 1)) {
            Ok(ticket) => assert_eq!(ticket.wait().result, Ok(2)),
            Err(error) => assert!(error.is_closed()),
        });
        scheduler.close();
        run(worker);
        submitter.join().expect("the submitter ends");
    });
}

#[test]
fn withdrawing_races_the_worker_and_closing_still_ends_it() {
    explore(|| {
        let (scheduler, mut workers, group) = tiny(1);
        let worker = workers.pop().expect("one worker");
        let worker = thread::spawn(move || run(worker));
        let ticket = scheduler.submit(Request::new(group, 1)).expect("there is room");
        scheduler.close();
        if let Err(ticket) = ticket.withdraw() {
            assert_eq!(ticket.wait().result, Ok(2));
        }
        assert_eq!(scheduler.depth(), [0; 4]);
        worker.join().expect("the worker ends");
    });
}

#[test]
fn what_arrives_while_the_timekeeper_hands_over_to_a_worker_is_executed() {
    explore(|| {
        let (scheduler, mut workers, group) = tiny(1);
        let worker = workers.pop().expect("one worker");
        let timekeeper = scheduler.timekeeper().expect("nobody asked for it before");
        let timekeeper = thread::spawn(move || timekeeper.run());
        let worker = thread::spawn(move || run(worker));
        let ticket = scheduler.submit(Request::new(group, 1)).expect("there is room");
        assert_eq!(ticket.wait().result, Ok(2));
        drop(scheduler);
        worker.join().expect("the worker ends");
        timekeeper.join().expect("the timekeeper ends");
    });
}

#[test]
fn two_workers_share_the_work_and_both_end() {
    explore(|| {
        let (scheduler, workers, group) = tiny(2);
        let workers: Vec<_> = workers.into_iter().map(|worker| thread::spawn(move || run(worker))).collect();
        let ticket = scheduler.submit(Request::new(group, 1)).expect("there is room");
        assert_eq!(ticket.wait().result, Ok(2));
        drop(scheduler);
        for worker in workers {
            worker.join().expect("a worker ends");
        }
    });
}

#[test]
fn a_request_submitted_while_the_last_worker_goes_is_settled() {
    explore(|| {
        let (scheduler, workers, group) = tiny(1);
        let last = thread::spawn(move || drop(workers));
        match scheduler.submit(Request::new(group, 1)) {
            Ok(ticket) => assert_eq!(ticket.wait().result, Err(Failure::ShutDown)),
            Err(error) => assert!(error.is_closed()),
        }
        last.join().expect("dropping ends");
    });
}

#[test]
fn giving_up_a_worker_races_its_coming_back_and_the_request_is_answered_once() {
    explore(|| {
        let (scheduler, mut workers, group) = tiny(1);
        let worker = workers.pop().expect("one worker");
        let worker = thread::spawn(move || run(worker));
        let ticket = scheduler.submit(Request::new(group, 1)).expect("there is room");
        scheduler.close();
        let successor = scheduler.executing().pop().and_then(|executing| scheduler.replace(&executing));
        let expected = if successor.is_some() { Err(Failure::Abandoned) } else { Ok(2) };
        assert_eq!(ticket.wait().result, expected);
        if let Some(successor) = successor {
            run(successor);
        }
        worker.join().expect("the worker ends");
    });
}
