//! A worker that does not come back from a batch is given up, and another takes its place.

use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use volley_scheduler::{Batch, Config, Executing, Failure, GroupConfig, GroupId, Request, Scheduler, Worker};

/// What a request has its executor do.
enum Work {
    /// Answer with this number.
    Answer(u32),
    /// Say that it has begun, wait for a word (or for nobody being left to give one), and answer with this number.
    Hang(Sender<()>, Receiver<()>, u32),
}

type Works = Scheduler<Work, u32>;

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

fn scheduler(workers: usize) -> (Works, Vec<Worker<Work, u32>>, GroupId) {
    let (scheduler, workers) = Scheduler::new(Config::default(), NonZeroUsize::new(workers).expect("positive"));
    let group = scheduler.add_group(GroupConfig::up_to(NonZeroUsize::new(8).expect("positive")));
    (scheduler, workers, group)
}

fn start(worker: Worker<Work, u32>) -> JoinHandle<()> {
    thread::spawn(move || {
        worker.run(|batch: &mut Batch<Work, u32>| {
            for i in 0..batch.len() {
                let answer = match batch.payload(i) {
                    Work::Answer(answer) => *answer,
                    Work::Hang(begun, word, answer) => {
                        begun.send(()).expect("the test waits for it");
                        let _ = word.recv();
                        *answer
                    }
                };
                batch.complete(i, answer);
            }
        });
    })
}

/// A request that hangs, when it has begun to, and what ends it.
struct Hanging {
    ticket: volley_scheduler::Ticket<u32>,
    word: Sender<()>,
    executing: Executing,
}

fn hang(scheduler: &Works, group: GroupId) -> Hanging {
    let (begin, begun) = mpsc::channel();
    let (word, heard) = mpsc::channel();
    let request = Request::new(group, Work::Hang(begin, heard, 7));
    let Ok(ticket) = scheduler.submit(request) else { panic!("there is room") };
    begun.recv().expect("it begins");
    let mut executing = scheduler.executing();
    let executing = executing.pop().expect("it is being executed");
    Hanging { ticket, word, executing }
}

fn answer(scheduler: &Works, group: GroupId, number: u32) -> Result<u32, Failure> {
    let Ok(ticket) = scheduler.submit(Request::new(group, Work::Answer(number))) else { panic!("there is room") };
    ticket.wait().result
}

#[test]
fn the_requests_of_a_stuck_batch_are_told_and_the_successor_goes_on() {
    let (scheduler, mut workers, group) = scheduler(1);
    let stuck = start(workers.pop().expect("one"));
    let Hanging { ticket, word, executing } = hang(&scheduler, group);
    assert_eq!((executing.worker, executing.group, executing.rows), (0, group, 1));

    let successor = scheduler.replace(&executing).expect("it is stuck");
    assert_eq!(successor.number(), 0);
    let outcome = ticket.wait();
    assert_eq!(outcome.result, Err(Failure::Abandoned));
    assert_eq!(outcome.timings.batch.expect("it was in one").started, executing.started);
    assert!(scheduler.executing().is_empty());
    let successor = start(successor);
    assert_eq!(answer(&scheduler, group, 3), Ok(3));

    // What it answers now, nobody hears, and it does not execute another batch.
    word.send(()).expect("it listens");
    stuck.join().expect("it ends without a word");
    assert_eq!(answer(&scheduler, group, 4), Ok(4));
    scheduler.close();
    successor.join().expect("it ends");
}

#[test]
fn a_batch_that_is_over_is_not_given_up_nor_is_the_next_one_in_its_place() {
    let (scheduler, mut workers, group) = scheduler(1);
    let worker = start(workers.pop().expect("one"));
    let first = hang(&scheduler, group);
    first.word.send(()).expect("it listens");
    assert_eq!(first.ticket.wait().result, Ok(7));
    assert!(scheduler.replace(&first.executing).is_none(), "it is over");

    let second = hang(&scheduler, group);
    assert!(scheduler.replace(&first.executing).is_none(), "another batch of the same worker is executed");
    second.word.send(()).expect("it listens");
    assert_eq!(second.ticket.wait().result, Ok(7));
    scheduler.close();
    worker.join().expect("it ends");
}

#[test]
fn only_one_of_two_who_give_up_the_same_batch_gets_a_successor() {
    let (scheduler, mut workers, group) = scheduler(1);
    let stuck = start(workers.pop().expect("one"));
    let Hanging { executing, word, .. } = hang(&scheduler, group);
    let successor = scheduler.replace(&executing).expect("the first");
    assert!(scheduler.replace(&executing).is_none());
    drop(word);
    stuck.join().expect("it ends");
    drop(successor);
}

#[test]
fn what_waits_behind_a_stuck_worker_is_drained_by_its_successor_after_closing() {
    let (scheduler, mut workers, group) = scheduler(1);
    let stuck = start(workers.pop().expect("one"));
    let Hanging { ticket, executing, word } = hang(&scheduler, group);
    let Ok(waiting) = scheduler.submit(Request::new(group, Work::Answer(5))) else { panic!("there is room") };
    scheduler.close();
    let successor = start(scheduler.replace(&executing).expect("it is stuck"));
    assert_eq!(ticket.wait().result, Err(Failure::Abandoned));
    assert_eq!(waiting.wait().result, Ok(5));
    successor.join().expect("it drains and ends");
    drop(word);
    stuck.join().expect("it ends as well");
}

#[test]
fn when_a_successor_goes_unused_and_it_was_the_last_what_waits_is_told() {
    let (scheduler, mut workers, group) = scheduler(1);
    let stuck = start(workers.pop().expect("one"));
    let Hanging { executing, word, .. } = hang(&scheduler, group);
    let Ok(waiting) = scheduler.submit(Request::new(group, Work::Answer(5))) else { panic!("there is room") };
    drop(scheduler.replace(&executing).expect("it is stuck"));
    assert_eq!(waiting.wait().result, Err(Failure::ShutDown));
    drop(word);
    stuck.join().expect("it ends, and counts itself out no second time");
}

#[test]
fn the_other_worker_goes_on_while_one_is_stuck() {
    let (scheduler, workers, group) = scheduler(2);
    let mut threads: Vec<_> = workers.into_iter().map(start).collect();
    let Hanging { ticket, executing, word } = hang(&scheduler, group);
    for number in 0..100 {
        assert_eq!(answer(&scheduler, group, number), Ok(number));
    }
    threads.push(start(scheduler.replace(&executing).expect("it is stuck")));
    assert_eq!(ticket.wait().result, Err(Failure::Abandoned));
    drop(word);
    scheduler.close();
    for thread in threads {
        thread.join().expect("all end");
    }
}

#[test]
fn a_worker_that_was_replaced_and_panics_harms_nobody() {
    let (scheduler, mut workers) = Scheduler::<Receiver<()>, u32>::new(Config::default(), one());
    let group = scheduler.add_group(GroupConfig::up_to(one()));
    let (begin, begun) = mpsc::channel();
    let stuck = workers.pop().expect("one");
    let stuck = thread::spawn(move || {
        stuck.run(|batch: &mut Batch<Receiver<()>, u32>| {
            begin.send(()).expect("the test waits for it");
            let _ = batch.payload(0).recv();
            panic!("at last");
        });
    });
    let (word, heard) = mpsc::channel();
    let Ok(ticket) = scheduler.submit(Request::new(group, heard)) else { panic!("there is room") };
    begun.recv().expect("it begins");
    let executing = scheduler.executing().pop().expect("it is being executed");
    let successor = scheduler.replace(&executing).expect("it is stuck");
    assert_eq!(ticket.wait().result, Err(Failure::Abandoned));
    drop(word);
    stuck.join().expect("the panic is contained");
    drop(successor);
}
