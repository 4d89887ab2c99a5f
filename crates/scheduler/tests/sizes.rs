//! Executors that are made for some batch sizes only, in virtual time.

#![cfg(not(loom))]

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use volley_scheduler::step::{Step, Stepper};
use volley_scheduler::{Config, GroupConfig, GroupId, Policy, Request};

const SIZES: [usize; 3] = [1, 8, 32];

fn positive(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("positive")
}

/// A stepper that has learned that a batch costs `fixed` and 100 microseconds a row.
fn learned(fixed: Duration) -> (Stepper<usize>, GroupId, Instant) {
    let now = Instant::now();
    let config = Config { policy: Policy::Eager, ..Config::default() };
    let mut stepper = Stepper::new(config, NonZeroUsize::MIN, now);
    let group = stepper.add_group(GroupConfig::of_sizes(SIZES.map(positive)));
    for _ in 0..20 {
        for size in SIZES {
            stepper.done(now, group, size, fixed + Duration::from_micros(100) * size as u32);
        }
    }
    (stepper, group, now)
}

/// The sizes of the batches in which so many requests go, and what each is padded to.
fn batches(fixed: Duration, requests: usize) -> Vec<(usize, usize)> {
    let (mut stepper, group, now) = learned(fixed);
    for request in 0..requests {
        stepper.submit(now, Request::new(group, request)).expect("there is room");
    }
    std::iter::from_fn(|| match stepper.step(now, 1) {
        Step::Batch(batch) => Some((batch.rows, batch.padded_rows)),
        Step::Wait(_) | Step::Idle => None,
    })
    .collect()
}

#[test]
fn where_a_batch_costs_much_and_a_row_little_all_go_at_once_padded() {
    assert_eq!(batches(Duration::from_millis(10), 12), [(12, 32)]);
    assert_eq!(batches(Duration::from_millis(10), 3), [(3, 8)]);
    assert_eq!(batches(Duration::from_millis(10), 32), [(32, 32)]);
}

#[test]
fn where_a_row_costs_much_no_compute_goes_into_padding() {
    assert_eq!(batches(Duration::from_micros(1), 12), [(8, 8), (1, 1), (1, 1), (1, 1), (1, 1)]);
    assert_eq!(batches(Duration::from_micros(1), 40), [(32, 32), (8, 8)]);
}

#[test]
fn a_deadline_is_judged_by_what_the_padded_size_costs() {
    let (mut stepper, group, now) = learned(Duration::ZERO);
    // Two rows are executed as eight: more than 0.8 ms.
    let due = |micros| now + Duration::from_micros(micros);
    let two = || Request::new(group, 0).rows(positive(2));
    stepper.submit(now, two().deadline(due(700))).expect("a submitter does not know the sizes");
    assert!(matches!(stepper.step(now, 1), Step::Idle));
    assert_eq!(stepper.refused().count(), 1);
    stepper.submit(now, two().deadline(due(2_000))).expect("there is time");
    assert!(matches!(stepper.step(now, 1), Step::Batch(batch) if batch.padded_rows == 8));
}

#[test]
fn what_is_heavier_than_the_largest_size_is_refused() {
    let (mut stepper, group, now) = learned(Duration::ZERO);
    let error = stepper.submit(now, Request::new(group, 0).rows(positive(33))).expect_err("33 rows do not fit");
    assert!(error.is_too_large(), "{error}");
}
