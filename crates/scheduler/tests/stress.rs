//! Many threads at once: whatever happens, every accepted request has exactly one end.

#![cfg(not(loom))]

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use volley_scheduler::{
    Batch, Config, Failure, GroupConfig, Policy, Priority, Request, Scheduler, SubmitError, Ticket,
};

/// Small steps of a pseudo-random walk (xorshift64*), so that a run is its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % sides
    }
}

#[derive(Debug, Default)]
struct Ends {
    accepted: AtomicU64,
    refused: AtomicU64,
    answered: AtomicU64,
    late: AtomicU64,
    withdrawn: AtomicU64,
    panicked: AtomicU64,
    unanswered: AtomicU64,
}

impl Ends {
    fn count(&self, outcome: Result<u64, Failure>, expected: u64) {
        let counter = match outcome {
            Ok(value) => {
                assert_eq!(value, expected, "the answer of another request");
                &self.answered
            }
            Err(Failure::DeadlineExceeded) => &self.late,
            Err(Failure::WorkerPanicked) => &self.panicked,
            Err(Failure::Unanswered) => &self.unanswered,
            Err(other) => panic!("{other} while workers live"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        [&self.answered, &self.late, &self.withdrawn, &self.panicked, &self.unanswered]
            .map(|counter| counter.load(Ordering::Relaxed))
            .iter()
            .sum()
    }
}

fn positive(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("positive")
}

/// Waits for a ticket, or withdraws it, or lets it go, as the dice fall.
fn finish(ticket: Ticket<u64>, expected: u64, dice: &mut Dice, ends: &Ends) {
    if dice.roll(4) == 0 {
        match ticket.withdraw() {
            Ok(()) => {
                ends.withdrawn.fetch_add(1, Ordering::Relaxed);
            }
            Err(ticket) => ends.count(ticket.wait().result, expected),
        }
    } else {
        ends.count(ticket.wait().result, expected);
    }
}

fn stress(policy: Policy, workers: usize, producers: u64, rounds: u64, seed: u64) {
    let config = Config {
        lane_capacity: positive(64),
        max_wait: Duration::from_micros(300),
        aging_interval: Duration::from_micros(500),
        policy,
    };
    let (scheduler, pool) = Scheduler::new(config, positive(workers));
    let groups = [1, 7, 32].map(|max_rows| scheduler.add_group(GroupConfig::up_to(positive(max_rows))));
    let ends = Ends::default();
    let executed = AtomicUsize::new(0);
    let half_way = producers * rounds / 2;
    thread::scope(|scope| {
        for worker in pool {
            let mut dice = Dice(seed ^ (worker.number() as u64 + 1) << 32);
            let executed = &executed;
            scope.spawn(move || {
                worker.run(|batch: &mut Batch<u64, u64>| {
                    assert!(batch.rows() <= batch.group().max_rows(), "a batch over its limit");
                    executed.fetch_add(batch.len(), Ordering::Relaxed);
                    let mishap = dice.roll(100);
                    for i in 0..batch.len() {
                        if mishap == 1 && i == 0 {
                            continue;
                        }
                        batch.complete(i, batch.payload(i) + 1);
                    }
                    if mishap == 0 {
                        std::panic::panic_any("the executor's own");
                    }
                });
            });
        }
        if workers == 1 {
            let timekeeper = scheduler.timekeeper().expect("nobody asked for it before");
            scope.spawn(move || timekeeper.run());
        }
        for producer in 0..producers {
            let (scheduler, ends) = (scheduler.clone(), &ends);
            let mut dice = Dice(seed.wrapping_mul(producer + 3) | 1);
            scope.spawn(move || {
                let mut open = Vec::new();
                for round in 0..rounds {
                    let group = groups[dice.roll(3) as usize];
                    let payload = producer << 32 | round;
                    let mut request = Request::new(group, payload)
                        .priority(Priority::ALL[dice.roll(4) as usize])
                        .rows(positive(1 + dice.roll(group.max_rows() as u64) as usize));
                    if dice.roll(3) == 0 {
                        request = request.deadline(Instant::now() + Duration::from_micros(dice.roll(2_000)));
                    }
                    match scheduler.submit(request) {
                        Ok(ticket) => {
                            ends.accepted.fetch_add(1, Ordering::Relaxed);
                            open.push((ticket, payload + 1));
                        }
                        Err(
                            SubmitError::Full(_)
                            | SubmitError::DeadlinePassed(_)
                            | SubmitError::DeadlineUnmeetable(..)
                            | SubmitError::Closed(_),
                        ) => {
                            ends.refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{other}"),
                    }
                    if ends.accepted.load(Ordering::Relaxed) + ends.refused.load(Ordering::Relaxed) == half_way {
                        // Somebody reaches the middle: from here on, submits race the end.
                        if dice.roll(2) == 0 {
                            scheduler.close();
                        }
                    }
                    while open.len() > 16 || (!open.is_empty() && dice.roll(3) == 0) {
                        let (ticket, expected) = open.swap_remove(dice.roll(open.len() as u64) as usize);
                        finish(ticket, expected, &mut dice, ends);
                    }
                }
                for (ticket, expected) in open {
                    finish(ticket, expected, &mut dice, ends);
                }
            });
        }
        drop(scheduler);
    });
    let accepted = ends.accepted.load(Ordering::Relaxed);
    assert_eq!(ends.total(), accepted, "{ends:?}");
    assert_eq!(accepted + ends.refused.load(Ordering::Relaxed), producers * rounds);
    let computed = [&ends.answered, &ends.panicked, &ends.unanswered].map(|counter| counter.load(Ordering::Relaxed));
    assert_eq!(computed.iter().sum::<u64>(), executed.load(Ordering::Relaxed) as u64, "{ends:?}");
}

#[test]
fn every_accepted_request_has_exactly_one_end_whatever_happens() {
    std::panic::set_hook(Box::new(|info| {
        if info.payload().downcast_ref::<&str>() != Some(&"the executor's own") {
            eprintln!("{info}");
        }
    }));
    for (i, policy) in [Policy::Eager, Policy::Deferred, Policy::Adaptive].into_iter().enumerate() {
        for workers in [1, 3] {
            for seed in 1..4 {
                stress(policy, workers, 4, 3_000, 0x9E37_79B9 * (seed * 10 + i as u64));
            }
        }
    }
}
