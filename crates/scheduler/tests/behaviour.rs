//! What callers and executors see, step by step: the executor waits for the test's word before each batch.

#![cfg(not(loom))]

use std::num::{NonZeroU32, NonZeroUsize};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use volley_scheduler::{
    Batch, Config, Executor, Failure, GroupConfig, GroupId, Handoff, Policy, Priority, Request, Scheduler, Ticket,
    Worker,
};

/// What the executor is told to do with a batch.
enum Act {
    Answer,
    Panic,
    LeaveOut,
}

/// A scheduler with one worker, which shows each batch and then waits to be told what to do with it.
struct Puppet {
    scheduler: Scheduler<u32, u32>,
    acts: Sender<Act>,
    batches: Receiver<Vec<u32>>,
    worker: JoinHandle<()>,
}

fn positive(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("positive")
}

fn config(lane_capacity: usize) -> Config {
    Config { lane_capacity: positive(lane_capacity), policy: Policy::Eager, ..Config::default() }
}

fn group(scheduler: &Scheduler<u32, u32>, max_rows: usize) -> GroupId {
    scheduler.add_group(GroupConfig::up_to(positive(max_rows)))
}

fn puppet(lane_capacity: usize) -> Puppet {
    let (scheduler, mut workers) = Scheduler::new(config(lane_capacity), NonZeroUsize::MIN);
    let worker: Worker<u32, u32> = workers.pop().expect("one worker");
    let (acts, told) = channel();
    let (show, batches) = channel();
    let worker = thread::spawn(move || {
        worker.run(move |batch: &mut Batch<u32, u32>| {
            show.send(batch.payloads().copied().collect()).expect("the test watches");
            match told.recv().expect("the test says what to do") {
                Act::Answer => {
                    for i in 0..batch.len() {
                        batch.complete(i, batch.payload(i) * 10);
                    }
                }
                Act::Panic => {
                    batch.complete(0, 0);
                    std::panic::panic_any("the executor's own");
                }
                Act::LeaveOut => (1..batch.len()).for_each(|i| batch.complete(i, 0)),
            }
        });
    });
    Puppet { scheduler, acts, batches, worker }
}

impl Puppet {
    fn submit(&self, request: Request<u32>) -> Ticket<u32> {
        self.scheduler.submit(request).expect("there is room")
    }

    /// Keeps the worker busy with a batch of its own, so that what follows waits.
    fn occupy(&self) -> Ticket<u32> {
        let ticket = self.submit(Request::new(group(&self.scheduler, 1), 0));
        assert_eq!(self.next_batch(), [0]);
        ticket
    }

    fn next_batch(&self) -> Vec<u32> {
        self.batches.recv().expect("the worker lives")
    }

    fn act(&self, act: Act) {
        self.acts.send(act).expect("the worker lives");
    }

    fn end(self) {
        self.scheduler.close();
        self.worker.join().expect("the worker ends");
    }
}

#[test]
fn what_arrives_while_the_worker_is_busy_goes_together_in_order() {
    let puppet = puppet(8);
    let batched = group(&puppet.scheduler, 3);
    let busy = puppet.occupy();
    let later = Instant::now() + Duration::from_secs(3_600);
    let requests = [
        Request::new(batched, 5).priority(Priority::Low),
        Request::new(batched, 3),
        Request::new(batched, 2).deadline(later + Duration::from_secs(1)),
        Request::new(batched, 1).deadline(later),
        Request::new(batched, 4),
        Request::new(batched, 0).priority(Priority::Critical),
    ];
    let tickets = requests.map(|request| puppet.submit(request));
    assert_eq!(puppet.scheduler.depth(), [1, 0, 4, 1]);
    puppet.act(Act::Answer);
    assert_eq!(busy.wait().result, Ok(0));
    assert_eq!(puppet.next_batch(), [0, 1, 2]);
    assert_eq!(puppet.scheduler.depth(), [0, 0, 2, 1]);
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [3, 4, 5]);
    puppet.act(Act::Answer);
    assert_eq!(tickets.map(|ticket| ticket.wait().result), [50, 30, 20, 10, 40, 0].map(Ok));
    puppet.end();
}

#[test]
fn groups_never_share_a_batch() {
    let puppet = puppet(8);
    let groups = [group(&puppet.scheduler, 8), group(&puppet.scheduler, 8)];
    let busy = puppet.occupy();
    let tickets = [1, 2, 3, 4].map(|n| puppet.submit(Request::new(groups[n as usize % 2], n)));
    for expected in [vec![0], vec![1, 3], vec![2, 4]] {
        if expected != [0] {
            assert_eq!(puppet.next_batch(), expected);
        }
        puppet.act(Act::Answer);
    }
    assert!(busy.wait().result.is_ok());
    assert_eq!(tickets.map(|ticket| ticket.wait().result), [10, 20, 30, 40].map(Ok));
    puppet.end();
}

#[test]
fn rows_count_against_the_limit_of_a_batch() {
    let puppet = puppet(8);
    let batched = group(&puppet.scheduler, 4);
    let busy = puppet.occupy();
    let tickets = [2, 1, 3].map(|rows| puppet.submit(Request::new(batched, rows).rows(positive(rows as usize))));
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [2, 1]);
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [3]);
    puppet.act(Act::Answer);
    let batches = tickets.map(|ticket| ticket.wait().timings.batch.map(|batch| (batch.len, batch.rows)));
    assert_eq!(batches, [Some((2, 3)), Some((2, 3)), Some((1, 3))]);
    drop(busy);

    let error =
        puppet.scheduler.submit(Request::new(batched, 9).rows(positive(5))).expect_err("five do not go in four");
    assert!(error.is_too_large());
    assert_eq!(error.to_string(), "the request has 5 rows, but a batch of its group holds at most 4");
    assert_eq!(error.into_request().into_payload(), 9);
    puppet.end();
}

#[test]
fn a_batch_is_full_where_the_group_says_and_what_is_heavier_goes_alone() {
    let puppet = puppet(8);
    let batched = puppet.scheduler.add_group(GroupConfig::up_to(positive(8)).full_at(positive(4)));
    let busy = puppet.occupy();
    let tickets = [3, 6, 1, 2].map(|rows| puppet.submit(Request::new(batched, rows).rows(positive(rows as usize))));
    puppet.act(Act::Answer);
    for expected in [&[3][..], &[6], &[1, 2]] {
        assert_eq!(puppet.next_batch(), expected);
        puppet.act(Act::Answer);
    }
    drop((busy, tickets));
    puppet.end();
}

#[test]
fn where_a_batch_is_full_at_one_row_no_two_requests_share_it_whatever_sizes_there_are() {
    let puppet = puppet(8);
    let sizes = GroupConfig::of_sizes([4, 8].map(positive));
    let batched = puppet.scheduler.add_group(sizes.full_at(positive(1)));
    let busy = puppet.occupy();
    let tickets = [1, 2, 3].map(|rows| puppet.submit(Request::new(batched, rows).rows(positive(rows as usize))));
    puppet.act(Act::Answer);
    for expected in 1..=3 {
        assert_eq!(puppet.next_batch(), [expected]);
        puppet.act(Act::Answer);
    }
    drop((busy, tickets));
    puppet.end();
}

#[test]
fn a_full_lane_refuses_at_once_and_the_others_do_not() {
    let puppet = puppet(2);
    let batched = group(&puppet.scheduler, 8);
    let busy = puppet.occupy();
    let tickets = [1, 2].map(|n| puppet.submit(Request::new(batched, n)));
    let error = puppet.scheduler.submit(Request::new(batched, 3)).expect_err("the lane holds two");
    assert!(error.is_full());
    assert_eq!((error.lane(), error.to_string().as_str()), (Priority::Normal, "the normal lane is full"));
    let high = puppet.submit(Request::new(batched, 4).priority(Priority::High));
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [4, 1, 2]);
    puppet.act(Act::Answer);
    assert!(busy.wait().result.is_ok() && high.wait().result.is_ok());
    assert_eq!(tickets.map(|ticket| ticket.wait().result), [10, 20].map(Ok));
    puppet.end();
}

#[test]
fn a_withdrawn_request_is_never_computed_and_frees_its_place_at_once() {
    let puppet = puppet(2);
    let batched = group(&puppet.scheduler, 8);
    let busy = puppet.occupy();
    // Many times the capacity, and nobody leads while the only worker is busy.
    for n in 0..100 {
        let tickets = [n, n].map(|n| puppet.submit(Request::new(batched, n)));
        assert!(puppet.scheduler.submit(Request::new(batched, n)).is_err());
        drop(tickets);
        assert_eq!(puppet.scheduler.depth(), [0; 4]);
    }
    let kept = puppet.submit(Request::new(batched, 7));
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [7]);
    let taken = kept.withdraw().expect_err("a batch has taken it");
    puppet.act(Act::Answer);
    assert_eq!(taken.wait().result, Ok(70));
    drop(busy);
    puppet.end();
}

#[test]
fn what_withdrawn_requests_leave_behind_in_a_lane_costs_nobody_an_answer() {
    // A lane of three has room for a fourth arrival where one of them was withdrawn.
    let puppet = puppet(3);
    let batched = group(&puppet.scheduler, 8);
    let busy = puppet.occupy();
    assert!(puppet.submit(Request::new(batched, 0)).withdraw().is_ok());
    let tickets = [1, 2, 3].map(|payload| puppet.submit(Request::new(batched, payload)));
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [1, 2, 3]);
    puppet.act(Act::Answer);
    for ticket in tickets {
        assert!(ticket.wait().result.is_ok());
    }
    drop(busy);
    puppet.end();
}

#[test]
fn a_request_that_expires_in_the_queue_is_told_and_not_computed() {
    let puppet = puppet(4);
    let batched = group(&puppet.scheduler, 8);
    let busy = puppet.occupy();
    let deadline = Instant::now() + Duration::from_millis(1);
    let late = puppet.submit(Request::new(batched, 1).deadline(deadline));
    let patient = puppet.submit(Request::new(batched, 2));
    while Instant::now() <= deadline {
        thread::yield_now();
    }
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [2]);
    let outcome = late.wait();
    assert_eq!(outcome.result, Err(Failure::DeadlineExceeded));
    assert_eq!(outcome.timings.batch, None);
    puppet.act(Act::Answer);
    assert!(patient.wait().result.is_ok() && busy.wait().result.is_ok());

    let error = puppet.scheduler.submit(Request::new(batched, 3).deadline(deadline)).expect_err("too late");
    assert!(error.is_deadline_passed());
    puppet.end();
}

#[test]
fn a_request_that_expires_while_every_worker_executes_is_told_by_the_timekeeper() {
    let puppet = puppet(4);
    let timekeeper = puppet.scheduler.timekeeper().expect("nobody asked for it before");
    assert!(puppet.scheduler.timekeeper().is_none());
    let timekeeper = thread::spawn(move || timekeeper.run());
    let batched = group(&puppet.scheduler, 8);
    let busy = puppet.occupy();
    let patient = puppet.submit(Request::new(batched, 2));
    for millis in [20, 1, 5] {
        let due = Instant::now() + Duration::from_millis(millis);
        // The worker executes until it is told to go on, which it is not before this.
        let late = puppet.submit(Request::new(batched, 1).deadline(due));
        let outcome = late.wait();
        assert_eq!(outcome.result, Err(Failure::DeadlineExceeded));
        assert_eq!(outcome.timings.batch, None);
    }
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [2]);
    puppet.act(Act::Answer);
    assert!(patient.wait().result.is_ok() && busy.wait().result.is_ok());
    puppet.end();
    timekeeper.join().expect("the timekeeper ends with the last worker");
}

#[test]
fn what_would_be_refused_for_its_deadline_is_known_before_it_is_prepared() {
    let (scheduler, mut workers) = Scheduler::new(config(64), NonZeroUsize::MIN);
    let worker: Worker<u32, u32> = workers.pop().expect("one worker");
    let thread = thread::spawn(move || {
        worker.run(|batch: &mut Batch<u32, u32>| {
            thread::sleep(Duration::from_millis(20));
            (0..batch.len()).for_each(|i| batch.complete(i, 0));
        });
    });
    let one = group(&scheduler, 1);
    let wait = |deadline| scheduler.unmeetable_wait(one, None, Priority::Normal, deadline);
    // What a batch takes is learned, and forgotten again on a machine that stands still for a second.
    let refused = (0..1000).find_map(|_| {
        let later = Instant::now() + Duration::from_secs(3600);
        let ticket = scheduler.submit(Request::new(one, 1).deadline(later)).expect("there is time");
        let soon = Instant::now() + Duration::from_millis(5);
        let known = wait(soon);
        let refusal = scheduler.submit(Request::new(one, 1).deadline(soon)).err();
        assert_eq!(wait(later), None);
        assert!(ticket.wait().result.is_ok());
        known.zip(refusal)
    });
    let (wait, refusal) = refused.expect("a deadline that comes before the batch ends");
    let told = refusal.predicted_wait().expect("it says so");
    assert!(told.abs_diff(wait) < Duration::from_secs(1), "{told:?} instead of {wait:?}");
    scheduler.close();
    thread.join().expect("it ends");
}

#[test]
fn a_panic_fails_its_whole_batch_and_the_worker_goes_on() {
    let puppet = puppet(8);
    let batched = group(&puppet.scheduler, 8);
    let busy = puppet.occupy();
    let tickets = [1, 2].map(|n| puppet.submit(Request::new(batched, n)));
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [1, 2]);
    puppet.act(Act::Panic);
    assert_eq!(tickets.map(|ticket| ticket.wait().result), [Err(Failure::WorkerPanicked); 2]);
    let next = puppet.submit(Request::new(batched, 3));
    assert_eq!(puppet.next_batch(), [3]);
    puppet.act(Act::Answer);
    assert_eq!(next.wait().result, Ok(30));
    drop(busy);
    puppet.end();
}

#[test]
fn an_executor_has_its_turn_between_the_answers_of_a_batch_and_the_next_batch() {
    struct Resting(Sender<&'static str>, Receiver<()>);
    impl Executor<u32, u32> for Resting {
        fn execute(&mut self, batch: &mut Batch<u32, u32>) {
            self.0.send("executes").expect("the test watches");
            batch.complete(0, 0);
        }

        fn delivered(&mut self) {
            self.0.send("delivered").expect("the test watches");
            self.1.recv().expect("the test lets it go on");
            std::panic::panic_any("the worker goes on all the same");
        }
    }
    let (scheduler, mut workers) = Scheduler::new(config(4), NonZeroUsize::MIN);
    let (show, shown) = channel();
    let (go_on, told) = channel();
    let worker: Worker<u32, u32> = workers.pop().expect("one worker");
    let worker = thread::spawn(move || worker.run(Resting(show, told)));
    let alone = group(&scheduler, 1);
    let tickets = [0; 2].map(|n| scheduler.submit(Request::new(alone, n)).expect("there is room"));
    for (ticket, waiting) in tickets.into_iter().zip([1, 0]) {
        assert_eq!([shown.recv(), shown.recv()], [Ok("executes"), Ok("delivered")]);
        let answered = ticket.wait_timeout(Duration::from_secs(10)).expect("answered while the executor rests");
        assert_eq!(answered.result, Ok(0));
        assert_eq!(scheduler.depth().iter().sum::<usize>(), waiting, "the next batch waits for it");
        go_on.send(()).expect("it waits");
    }
    scheduler.close();
    worker.join().expect("it ends");
}

#[test]
fn what_the_executor_leaves_out_fails_alone() {
    let puppet = puppet(8);
    let batched = group(&puppet.scheduler, 8);
    let busy = puppet.occupy();
    let tickets = [1, 2].map(|n| puppet.submit(Request::new(batched, n)));
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [1, 2]);
    puppet.act(Act::LeaveOut);
    assert_eq!(tickets.map(|ticket| ticket.wait().result), [Err(Failure::Unanswered), Ok(0)]);
    drop(busy);
    puppet.end();
}

#[test]
fn closing_finishes_what_was_accepted_and_refuses_what_comes() {
    let puppet = puppet(8);
    let batched = group(&puppet.scheduler, 8);
    let busy = puppet.occupy();
    let accepted = puppet.submit(Request::new(batched, 1));
    puppet.scheduler.close();
    assert!(puppet.scheduler.submit(Request::new(batched, 2)).expect_err("closed").is_closed());
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [1]);
    puppet.act(Act::Answer);
    assert_eq!((busy.wait().result, accepted.wait().result), (Ok(0), Ok(10)));
    puppet.end();
}

#[test]
fn when_the_last_worker_goes_what_waits_is_told_and_nothing_more_is_accepted() {
    let (scheduler, workers) = Scheduler::new(config(8), positive(2));
    let batched = group(&scheduler, 8);
    let waiting = scheduler.submit(Request::new(batched, 1)).expect("a worker may yet run");
    drop(workers);
    let outcome = waiting.wait();
    assert_eq!(outcome.result, Err(Failure::ShutDown));
    assert!(scheduler.submit(Request::new(batched, 2)).expect_err("nobody is left").is_closed());
    assert_eq!(scheduler.depth(), [0; 4]);
}

#[test]
fn timings_follow_a_request_from_its_submission_to_its_completion() {
    let puppet = puppet(8);
    let before = Instant::now();
    let ticket = puppet.submit(Request::new(group(&puppet.scheduler, 8), 1).priority(Priority::High));
    puppet.next_batch();
    puppet.act(Act::Answer);
    let timings = ticket.wait().timings;
    let batch = timings.batch.expect("it was in a batch");
    let order = [before, timings.submitted, batch.formed, batch.started, timings.completed];
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!((timings.priority, batch.priority, batch.len, batch.rows), (Priority::High, Priority::High, 1, 1));
    assert!(timings.queue_time() + timings.execute_time() <= timings.total());
    puppet.end();
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_ticket_is_a_future_that_wakes_the_task_that_polled_it_last() {
    let puppet = puppet(8);
    let ticket = puppet.submit(Request::new(group(&puppet.scheduler, 8), 1));
    puppet.next_batch();
    let mut ticket = pin!(ticket);
    let counts = [(); 2].map(|()| Arc::<Count>::default());
    for count in &counts {
        let waker = Waker::from(Arc::clone(count));
        assert!(ticket.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    puppet.act(Act::Answer);
    // The worker wakes before it takes the next batch.
    let next = puppet.submit(Request::new(group(&puppet.scheduler, 8), 2));
    puppet.next_batch();
    assert_eq!(counts.map(|count| count.0.load(Ordering::Relaxed)), [0, 1]);
    match ticket.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => assert_eq!(outcome.result, Ok(10)),
        Poll::Pending => panic!("the task was woken"),
    }
    puppet.act(Act::Answer);
    assert_eq!(next.wait().result, Ok(20));
    puppet.end();
}

#[test]
fn a_task_that_awaits_several_requests_of_a_batch_is_woken_once() {
    let puppet = puppet(8);
    let batched = group(&puppet.scheduler, 8);
    let busy = puppet.occupy();
    let task = Arc::<Count>::default();
    let waker = Waker::from(Arc::clone(&task));
    let mut tickets: Vec<_> = (0..5).map(|n| Box::pin(puppet.submit(Request::new(batched, n)))).collect();
    for ticket in &mut tickets {
        assert!(ticket.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch().len(), 5);
    puppet.act(Act::Answer);
    // The worker wakes before it takes the next batch.
    let next = puppet.submit(Request::new(batched, 9));
    puppet.next_batch();
    assert_eq!(task.0.load(Ordering::Relaxed), 1);
    for mut ticket in tickets {
        assert!(ticket.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }
    puppet.act(Act::Answer);
    drop((busy, next));
    puppet.end();
}

#[test]
fn a_batch_wakes_the_runtime_of_its_tasks_once() {
    let puppet = puppet(8);
    let batched = group(&puppet.scheduler, 8);
    let handoff = Handoff::new();
    let (runtime, task) = (Arc::<Count>::default(), Arc::<Count>::default());
    let runtime_waker = Waker::from(Arc::clone(&runtime));
    let mut forward = pin!(handoff.forward());
    assert!(forward.as_mut().poll(&mut Context::from_waker(&runtime_waker)).is_pending());

    let busy = puppet.occupy();
    let task_waker = Waker::from(Arc::clone(&task));
    let mut tickets: Vec<_> =
        (0..5).map(|n| Box::pin(puppet.submit(Request::new(batched, n).handoff(&handoff)))).collect();
    for ticket in &mut tickets {
        assert!(ticket.as_mut().poll(&mut Context::from_waker(&task_waker)).is_pending());
    }
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch().len(), 5);
    puppet.act(Act::Answer);
    // The worker wakes before it takes the next batch.
    let next = puppet.submit(Request::new(batched, 9));
    puppet.next_batch();
    let woken = |count: &Count| count.0.load(Ordering::Relaxed);
    assert_eq!((woken(&runtime), woken(&task)), (1, 0));
    assert!(forward.as_mut().poll(&mut Context::from_waker(&runtime_waker)).is_pending());
    assert_eq!((woken(&runtime), woken(&task)), (1, 5));
    puppet.act(Act::Answer);
    assert!(next.wait().result.is_ok() && busy.wait().result.is_ok());
    puppet.end();
}

/// A payload whose drop panics: the user's code where the scheduler least expects it.
struct Explosive(Arc<Mutex<usize>>);

impl Drop for Explosive {
    fn drop(&mut self) {
        *self.0.lock().expect("nothing panics with the lock held") += 1;
        if !thread::panicking() {
            std::panic::panic_any("the payload's own");
        }
    }
}

#[test]
fn a_payload_that_panics_when_dropped_costs_neither_the_worker_nor_an_answer() {
    let (scheduler, mut workers) = Scheduler::new(config(8), NonZeroUsize::MIN);
    let batched = scheduler.add_group(GroupConfig::up_to(positive(8)));
    let worker: Worker<Explosive, ()> = workers.pop().expect("one worker");
    let worker = thread::spawn(move || {
        worker.run(|batch: &mut Batch<Explosive, ()>| (0..batch.len()).for_each(|i| batch.complete(i, ())));
    });
    let dropped = Arc::new(Mutex::new(0));
    for _ in 0..3 {
        let ticket = scheduler.submit(Request::new(batched, Explosive(Arc::clone(&dropped)))).expect("there is room");
        assert_eq!(ticket.wait().result, Ok(()));
    }
    scheduler.close();
    worker.join().expect("the worker ends as usual");
    assert_eq!(*dropped.lock().expect("nothing panics with the lock held"), 3);
}

/// A result whose drop panics: it is dropped by the worker where its caller has gone.
struct Thorny;

impl Drop for Thorny {
    fn drop(&mut self) {
        if !thread::panicking() {
            std::panic::panic_any("the result's own");
        }
    }
}

#[test]
fn a_result_that_panics_when_dropped_costs_neither_the_worker_nor_a_batch_mate() {
    let (scheduler, mut workers) = Scheduler::<bool, Option<Thorny>>::new(config(8), NonZeroUsize::MIN);
    let (executes, is_executing) = channel();
    let (go_on, may_go_on) = channel();
    let worker = workers.pop().expect("one worker");
    let worker = thread::spawn(move || {
        worker.run(|batch: &mut Batch<bool, Option<Thorny>>| {
            executes.send(batch.len()).expect("the test listens");
            may_go_on.recv().expect("the test says so");
            for i in 0..batch.len() {
                let thorny = batch.payload(i).then(|| Thorny);
                batch.complete(i, thorny);
            }
        });
    });
    let pair = scheduler.add_group(GroupConfig::up_to(positive(2)));
    let busy = scheduler.submit(Request::new(pair, false)).expect("there is room");
    assert_eq!(is_executing.recv(), Ok(1));
    let abandoned = scheduler.submit(Request::new(pair, true)).expect("there is room");
    let mate = scheduler.submit(Request::new(pair, false)).expect("there is room");
    go_on.send(()).expect("the worker waits");
    assert_eq!(is_executing.recv(), Ok(2));
    drop(abandoned);
    go_on.send(()).expect("the worker waits");
    assert!(matches!(mate.wait().result, Ok(None)));
    assert!(matches!(busy.wait().result, Ok(None)));
    scheduler.close();
    worker.join().expect("the worker outlives it");
}

#[test]
fn a_tenant_has_no_more_queued_than_its_quota_whatever_the_lane() {
    let puppet = puppet(8);
    let batched = group(&puppet.scheduler, 8);
    let tenant = puppet.scheduler.add_tenant(NonZeroU32::new(2).expect("positive"));
    let busy = puppet.occupy();
    let of_tenant = |value| Request::new(batched, value).tenant(tenant);
    let first = puppet.submit(of_tenant(1));
    let second = puppet.submit(of_tenant(2).priority(Priority::Low));
    let error = puppet.scheduler.submit(of_tenant(3).priority(Priority::Critical)).expect_err("two are queued");
    assert!(error.is_quota_exceeded(), "{error}");
    assert!(second.withdraw().is_ok());
    let third = puppet.submit(of_tenant(3));
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [1, 3]);
    // Taken, they are queued no more.
    let fourth = puppet.submit(of_tenant(4));
    puppet.act(Act::Answer);
    assert_eq!(puppet.next_batch(), [4]);
    puppet.act(Act::Answer);
    for ticket in [busy, first, third, fourth] {
        assert!(ticket.wait().result.is_ok());
    }
    puppet.end();
}

#[test]
fn a_batch_without_a_limit_is_one() {
    let (scheduler, mut workers) = Scheduler::new(config(8), NonZeroUsize::MIN);
    let boundless = scheduler.add_group(GroupConfig::up_to(NonZeroUsize::MAX));
    let worker = workers.pop().expect("one worker");
    let worker = thread::spawn(move || worker.run(|batch: &mut Batch<u32, u32>| batch.complete(0, 7)));
    let heavy = Request::new(boundless, 1).rows(positive(u32::MAX as usize));
    assert_eq!(scheduler.submit(heavy).expect("nothing is too heavy").wait().result, Ok(7));
    scheduler.close();
    worker.join().expect("the worker ends");
}
