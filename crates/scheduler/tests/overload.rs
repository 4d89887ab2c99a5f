//! More work than the device can do, in virtual time: what must go well all the same.

#![cfg(not(loom))]

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use volley_scheduler::step::{Batch, Step, Stepper};
use volley_scheduler::{Config, GroupConfig, GroupId, Policy, Priority, Request};

const FULL: usize = 32;
const FIXED: f64 = 4e-3;
const PER_ROW: f64 = 0.3e-3;
const DEADLINE: Duration = Duration::from_millis(100);

/// Pseudo-random numbers (`SplitMix64`), so that a run is its seed.
struct Dice(u64);

impl Dice {
    /// Uniform in 0..1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }

    /// Log-normal with mean 1 and a deviation of 30 % (Box and Muller's method).
    fn noise(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        (0.3 * normal - 0.045).exp()
    }

    fn lane(&mut self) -> Priority {
        match self.uniform() {
            x if x < 0.1 => Priority::Critical,
            x if x < 0.3 => Priority::High,
            x if x < 0.9 => Priority::Normal,
            _ => Priority::Low,
        }
    }
}

#[derive(Debug, Default, Clone, PartialEq)]
struct Tally {
    offered: [u32; 4],
    in_time: [u32; 4],
    late: [u32; 4],
    turned_away: [u32; 4],
    dropped: [u32; 4],
    batches: u32,
    busy: f64,
    /// The longest from a deadline's becoming infeasible (no earlier than the deadline itself) to the notice.
    worst_notice: Duration,
}

struct World {
    now: Instant,
    stepper: Stepper<()>,
    group: GroupId,
    running: Option<(Instant, Batch<()>, Duration)>,
    tally: Tally,
    dice: Dice,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut stepper = Stepper::new(Config::default(), NonZeroUsize::MIN, now);
        let group = stepper.add_group(GroupConfig::up_to(NonZeroUsize::new(FULL).expect("positive")));
        Self { now, stepper, group, running: None, tally: Tally::default(), dice: Dice(seed) }
    }

    /// Offers `load` times what the device can do in full batches.
    fn run(mut self, load: f64, time: Duration) -> Tally {
        let capacity = FULL as f64 / (FIXED + PER_ROW * FULL as f64);
        let gap = 1.0 / (load * capacity);
        let end = self.now + time;
        let mut arrival = self.now;
        while arrival < end {
            arrival += Duration::from_secs_f64(self.dice.exponential(gap));
            self.advance(arrival);
            self.now = arrival;
            let lane = self.dice.lane();
            self.tally.offered[lane.lane()] += 1;
            let request = Request::new(self.group, ()).priority(lane).deadline(self.now + DEADLINE);
            if self.stepper.submit(self.now, request).is_err() {
                self.tally.turned_away[lane.lane()] += 1;
            }
            if self.running.is_none() {
                self.step();
            }
        }
        self.advance(end + DEADLINE * 2);
        assert_eq!(self.stepper.depth(), [0; 4]);
        self.tally
    }

    /// Lets happen what happens before `until`.
    fn advance(&mut self, until: Instant) {
        loop {
            let next = match self.stepper_wakes() {
                Some(at) if at < until => at,
                _ => return,
            };
            self.now = self.now.max(next);
            if let Some((done, batch, took)) = self.running.take_if(|(done, ..)| *done <= self.now) {
                for member in &batch.members {
                    let counter = match member.deadline {
                        Some(deadline) if deadline < done => &mut self.tally.late,
                        _ => &mut self.tally.in_time,
                    };
                    counter[member.lane.lane()] += 1;
                }
                self.stepper.done(done, batch.group, batch.rows, took);
            }
            self.step();
        }
    }

    fn stepper_wakes(&mut self) -> Option<Instant> {
        let idle = usize::from(self.running.is_none());
        let step = if idle == 0 { self.stepper.step(self.now, 0) } else { return self.wake_idle() };
        self.count_refused();
        let done = self.running.as_ref().map(|(done, ..)| *done);
        match step {
            Step::Wait(at) => Some(done.map_or(at, |done| done.min(at))),
            _ => done,
        }
    }

    fn wake_idle(&mut self) -> Option<Instant> {
        self.step();
        self.running.as_ref().map(|(done, ..)| *done)
    }

    fn step(&mut self) {
        let idle = usize::from(self.running.is_none());
        if let Step::Batch(batch) = self.stepper.step(self.now, idle) {
            let took = Duration::from_secs_f64((FIXED + PER_ROW * batch.rows as f64) * self.dice.noise());
            self.tally.batches += 1;
            self.tally.busy += took.as_secs_f64();
            self.running = Some((self.now + took, batch, took));
        }
        self.count_refused();
    }

    fn count_refused(&mut self) {
        for member in self.stepper.refused() {
            self.tally.dropped[member.lane.lane()] += 1;
            let late = member.deadline.map(|deadline| self.now.saturating_duration_since(deadline));
            self.tally.worst_notice = self.tally.worst_notice.max(late.unwrap_or_default());
        }
    }
}

fn sum(counts: [u32; 4]) -> f64 {
    counts.iter().map(|&count| f64::from(count)).sum()
}

#[test]
fn under_overload_the_device_is_fully_used_and_hardly_anything_accepted_is_late() {
    let time = Duration::from_secs(10);
    // Device time available over device time per request at full batches.
    let ceiling = time.as_secs_f64() / (FIXED / FULL as f64 + PER_ROW);
    for seed in 1..3 {
        let tally = World::new(seed).run(1.5, time);
        let goodput = sum(tally.in_time) / ceiling;
        assert!(goodput >= 0.95, "{goodput} of the ceiling: {tally:?}");
        assert!(sum(tally.late) <= 0.001 * sum(tally.in_time), "{tally:?}");
        let top = f64::from(tally.in_time[0]) / f64::from(tally.offered[0]);
        assert!(top >= 0.999, "the top lane: {top}: {tally:?}");
        let ends = [tally.in_time, tally.late, tally.turned_away, tally.dropped].map(sum);
        assert!((ends.iter().sum::<f64>() - sum(tally.offered)).abs() < 0.5, "{tally:?}");
        assert!(tally.worst_notice <= Duration::from_millis(1), "{tally:?}");
        // Most of what will not be done is told so at once.
        assert!(sum(tally.turned_away) > 4.0 * sum(tally.dropped), "{tally:?}");
    }
}

#[test]
fn at_half_the_load_nothing_is_refused() {
    let tally = World::new(1).run(0.5, Duration::from_secs(5));
    assert_eq!(tally.in_time, tally.offered, "{tally:?}");
}

#[test]
fn a_refusal_says_how_long_the_wait_would_be_and_a_higher_lane_does_not_share_it() {
    let start = Instant::now();
    let mut stepper = Stepper::new(Config::default(), NonZeroUsize::MIN, start);
    let group = stepper.add_group(GroupConfig::up_to(NonZeroUsize::new(FULL).expect("positive")));
    let full = Duration::from_secs_f64(FIXED + PER_ROW * FULL as f64);
    for _ in 0..300 {
        stepper.done(start, group, FULL, full);
    }
    let mut accepted = 0;
    let refusal = loop {
        // What was submitted since the last look counts as well.
        if accepted % 100 == 0 {
            stepper.step(start, 0);
        }
        match stepper.submit(start, Request::new(group, ()).deadline(start + DEADLINE * 4)) {
            Ok(()) => accepted += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(refusal.is_deadline_unmeetable(), "{refusal}");
    let wait = refusal.predicted_wait().expect("it says so");
    let truth = full.mul_f64(f64::from(accepted) / FULL as f64);
    assert!(wait.abs_diff(truth) < full, "{wait:?} instead of {truth:?}");
    assert!(wait < DEADLINE * 4 && wait + full * 2 > DEADLINE * 4, "{wait:?}");

    let soon = start + DEADLINE / 2;
    assert!(stepper.submit(start, Request::new(group, ()).deadline(soon).priority(Priority::Critical)).is_ok());
    // What is due before the others goes before them, and what has no deadline is never hopeless.
    assert!(stepper.submit(start, Request::new(group, ()).deadline(soon)).is_ok());
    assert!(stepper.submit(start, Request::new(group, ())).is_ok());
    // Knowledge grows old: a refusal on it would keep out the very requests that could correct it.
    let later = start + Duration::from_secs(2);
    assert!(stepper.submit(later, Request::new(group, ()).deadline(later + full / 2)).is_ok());
}

/// How many answers callers that each wait for theirs get in a second, of virtual time.
fn closed_loop(policy: Policy, callers: u32) -> u32 {
    let start = Instant::now();
    let mut stepper = Stepper::new(Config { policy, ..Config::default() }, NonZeroUsize::MIN, start);
    let group = stepper.add_group(GroupConfig::up_to(NonZeroUsize::new(FULL).expect("positive")));
    let (mut now, mut answers, mut dice) = (start, 0, Dice(5));
    let mut sends: Vec<Instant> = vec![start; callers as usize];
    while now < start + Duration::from_secs(1) {
        sends.sort_unstable();
        let arrived = sends.iter().take_while(|&&at| at <= now).count();
        for at in sends.drain(..arrived) {
            assert!(stepper.submit(at, Request::new(group, ())).is_ok());
        }
        let next = sends.first().copied();
        match stepper.step(now, 1) {
            Step::Batch(batch) => {
                let took = Duration::from_secs_f64((400e-6 + 10e-6 * batch.rows as f64) * dice.noise());
                // Who sends during the batch is submitted after it, with its own time.
                now += took;
                stepper.done(now, group, batch.rows, took);
                answers += batch.rows as u32;
                sends.extend((0..batch.rows).map(|_| now + Duration::from_secs_f64(dice.exponential(5e-6))));
            }
            Step::Wait(until) => now = next.map_or(until, |next| next.min(until)),
            Step::Idle => now = next.expect("a caller is about to send"),
        }
    }
    answers
}

#[test]
fn holding_back_costs_callers_that_wait_for_their_answers_next_to_nothing() {
    for callers in [1, 2, 3, 8] {
        let [eager, adaptive] = [Policy::Eager, Policy::Adaptive].map(|policy| closed_loop(policy, callers));
        assert!(adaptive * 100 >= eager * 95, "{callers} callers: {adaptive} answers, {eager} by going at once");
    }
}

#[test]
fn the_same_arrivals_make_the_same_batches() {
    let [one, other] = [(); 2].map(|()| World::new(7).run(1.5, Duration::from_secs(2)));
    assert_eq!(one, other);
}

#[test]
fn what_a_batch_costs_is_known_to_submitters_also_where_no_batch_leaves_anything_behind() {
    let (mut now, took) = (Instant::now(), Duration::from_millis(50));
    let one = NonZeroUsize::MIN;
    let config = Config { policy: Policy::Eager, ..Config::default() };
    let mut stepper = Stepper::new(config, one, now);
    let group = stepper.add_group(GroupConfig::up_to(NonZeroUsize::new(FULL).expect("positive")));
    let due_in = |now: Instant, millis| Request::new(group, 0).deadline(now + Duration::from_millis(millis));
    for _ in 0..10 {
        stepper.submit(now, due_in(now, 500)).expect("there is time");
        assert!(matches!(stepper.step(now, 1), Step::Batch(_)));
        now += took;
        stepper.done(now, group, 1, took);
    }
    let error = stepper.submit(now, due_in(now, 10)).expect_err("a batch takes longer");
    assert!(error.is_deadline_unmeetable(), "{error}");
    assert!(stepper.submit(now, due_in(now, 500)).is_ok());
}
