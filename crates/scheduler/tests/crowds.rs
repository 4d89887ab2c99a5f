//! Thousands of tenants and of groups at once, in virtual time: who waits is served in turn, each once, and what a decision
//! costs does not grow out of hand, which would show as a test that takes minutes.

#![cfg(not(loom))]

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use volley_scheduler::step::{Step, Stepper};
use volley_scheduler::{Config, GroupConfig, Priority, Request};

const FULL: usize = 64;

fn positive(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("positive")
}

fn stepper(lane_capacity: usize, start: Instant) -> Stepper<usize> {
    let config = Config { lane_capacity: positive(lane_capacity), ..Config::default() };
    Stepper::new(config, NonZeroUsize::MIN, start)
}

/// Executes all that waits, a millisecond a batch. Gives back the payloads, batch by batch.
fn drain(stepper: &mut Stepper<usize>, mut now: Instant) -> Vec<Vec<usize>> {
    let mut batches = Vec::new();
    while let Step::Batch(batch) = stepper.step(now, 1) {
        now += Duration::from_millis(1);
        stepper.done(now, batch.group, batch.rows, Duration::from_millis(1));
        batches.push(batch.members.into_iter().map(|member| member.payload).collect());
    }
    batches
}

#[test]
fn two_thousand_tenants_with_deadlines_are_served_a_turn_each_before_anyone_has_a_second() {
    const TENANTS: usize = 2_000;
    /// An eighth of a full batch.
    const TURN: usize = FULL / 8;
    let start = Instant::now();
    let mut stepper = stepper(4 * TENANTS * TURN, start);
    let group = stepper.add_group(GroupConfig::up_to(positive(FULL)));
    let tenants: Vec<_> = (0..TENANTS).map(|_| stepper.add_tenant(NonZeroU32::MAX)).collect();
    // A batch was seen before, so that every deadline is judged.
    stepper.done(start, group, FULL, Duration::from_millis(1));
    for i in 0..2 * TENANTS * TURN {
        let tenant = i % TENANTS;
        let due = start + Duration::from_mins(1) + Duration::from_micros(i as u64);
        let request = Request::new(group, tenant).tenant(tenants[tenant]).deadline(due);
        stepper.submit(start, request).expect("there is time for all");
    }
    let batches = drain(&mut stepper, start);
    assert_eq!(stepper.refused().count(), 0);
    assert!(batches.iter().all(|batch| batch.len() == FULL));
    let mut given = vec![0; TENANTS];
    for (i, &tenant) in batches.iter().flatten().enumerate() {
        given[tenant] += 1;
        let turn = i / (TENANTS * TURN) + 1;
        assert!(given[tenant] <= turn * TURN, "tenant {tenant} has {} rows after {i} in all", given[tenant]);
    }
    assert!(given.iter().all(|&rows| rows == 2 * TURN));
}

#[test]
fn each_of_five_thousand_tenants_is_answered_in_time_or_told_that_it_will_not_be() {
    const TENANTS: usize = 5_000;
    let start = Instant::now();
    let mut stepper = stepper(4 * TENANTS, start);
    let group = stepper.add_group(GroupConfig::up_to(positive(FULL)));
    let tenants: Vec<_> = (0..TENANTS).map(|_| stepper.add_tenant(NonZeroU32::MAX)).collect();
    stepper.done(start, group, FULL, Duration::from_millis(1));
    // Some of them can be met, the others will be found hopeless as time goes.
    for (i, &tenant) in tenants.iter().enumerate() {
        let due = start + Duration::from_micros(2_000 + 20 * i as u64);
        stepper.submit(start, Request::new(group, i).tenant(tenant).deadline(due)).expect("nobody looked yet");
    }
    let answered: usize = drain(&mut stepper, start).iter().map(Vec::len).sum();
    assert_eq!(answered + stepper.refused().count(), TENANTS);
    assert!(answered > TENANTS / 2, "{answered} were answered in the time for 5,000");
    assert_eq!(stepper.depth(), [0; 4]);
}

#[test]
fn ten_thousand_groups_of_which_hundreds_wait_go_in_order_of_lane_and_deadline() {
    const GROUPS: usize = 10_000;
    const AT_ONCE: usize = 500;
    let mut now = Instant::now();
    let mut stepper = stepper(AT_ONCE, now);
    let groups: Vec<_> = (0..GROUPS).map(|_| stepper.add_group(GroupConfig::up_to(positive(FULL)))).collect();
    // In steps of a prime, so that neither the groups' order nor the submissions' is the right one.
    let order: Vec<_> = (0..GROUPS).map(|i| i * 7_919 % GROUPS).collect();
    for wave in order.chunks(AT_ONCE) {
        let mut expected = BTreeMap::new();
        for &i in wave {
            let (lane, due) = (Priority::ALL[i % 2], now + Duration::from_hours(1) + Duration::from_micros(i as u64));
            expected.insert((lane, due), vec![i]);
            let request = Request::new(groups[i], i).priority(lane).deadline(due);
            stepper.submit(now, request).expect("there is time for all");
        }
        let batches: Vec<_> = wave
            .iter()
            .map(|_| match stepper.step(now, 1) {
                Step::Batch(batch) => batch.members.into_iter().map(|member| member.payload).collect::<Vec<_>>(),
                other => panic!("{other:?} while groups wait"),
            })
            .collect();
        assert!(batches.iter().eq(expected.values()), "out of order");
        now += Duration::from_millis(1);
    }
    assert_eq!(stepper.depth(), [0; 4]);
}
