//! Many want the device at once, in virtual time: who gets how much of it.

#![cfg(not(loom))]

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use volley_scheduler::step::{Member, Step, Stepper};
use volley_scheduler::{Config, GroupConfig, GroupId, Priority, Request, TenantId};

const FULL: usize = 32;
const LARGEST: Duration = Duration::from_micros(4_000 + 300 * FULL as u64);

fn cost(rows: usize) -> Duration {
    Duration::from_micros(4_000 + 300 * rows as u64)
}

fn positive(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("positive")
}

/// A device whose batches take exactly their time, and who waits for it: each payload names its source.
struct Device {
    start: Instant,
    now: Instant,
    stepper: Stepper<usize>,
    group: GroupId,
    busy_until: Option<(Instant, usize)>,
    /// From submission to completion, by source.
    latencies: Vec<Vec<Duration>>,
    running: Vec<Member<usize>>,
}

impl Device {
    fn new(sources: usize) -> Self {
        let start = Instant::now();
        let mut stepper = Stepper::new(Config::default(), NonZeroUsize::MIN, start);
        let group = stepper.add_group(GroupConfig::up_to(positive(FULL)));
        let latencies = vec![Vec::new(); sources];
        Self { start, now: start, stepper, group, busy_until: None, latencies, running: Vec::new() }
    }

    fn submit(&mut self, at: Instant, source: usize, lane: Priority, tenant: Option<TenantId>) {
        self.advance(at);
        let mut request = Request::new(self.group, source).priority(lane);
        if let Some(tenant) = tenant {
            request = request.tenant(tenant);
        }
        // What the quota refuses is its tenant's own affair.
        let _ = self.stepper.submit(at, request);
        self.advance(at);
    }

    fn advance(&mut self, until: Instant) {
        loop {
            match self.busy_until {
                Some((done, _)) if done > until => break,
                Some((done, rows)) => {
                    self.now = done;
                    for member in self.running.drain(..) {
                        self.latencies[member.payload].push(done - member.submitted);
                    }
                    self.stepper.done(done, self.group, rows, cost(rows));
                    self.busy_until = None;
                }
                None => {}
            }
            match self.stepper.step(self.now, 1) {
                Step::Batch(batch) => {
                    self.busy_until = Some((self.now + cost(batch.rows), batch.rows));
                    self.running = batch.members;
                }
                Step::Wait(at) if at <= until => self.now = at,
                Step::Wait(_) | Step::Idle => break,
            }
        }
        self.now = self.now.max(until);
    }

    fn p99(&mut self, source: usize) -> Duration {
        let latencies = &mut self.latencies[source];
        latencies.sort_unstable();
        latencies[latencies.len() * 99 / 100]
    }
}

/// Ten tenants, each with a tenth of what the device can do at 80 %, one of them with `excess` times that. Gives back
/// the 99th percentile of the other nine together.
fn neighbours_p99(excess: u32, seconds: u32) -> Duration {
    let mut device = Device::new(2);
    let quota = NonZeroU32::new(1_000).expect("positive");
    let tenants: Vec<_> = (0..10).map(|_| device.stepper.add_tenant(quota)).collect();
    // 2,353 rows a second are the most; times 0.8, in ten.
    let gap = Duration::from_micros(5_312);
    let mut arrivals: Vec<(Instant, usize)> = Vec::new();
    for tenant in 0..tenants.len() {
        let (gap, n) = if tenant == 0 { (gap / excess, excess) } else { (gap, 1) };
        let offset = gap * tenant as u32 / 10;
        arrivals.extend((0..seconds * 188 * n).map(|i| (device.start + offset + gap * i, tenant)));
    }
    arrivals.sort_unstable();
    for (at, tenant) in arrivals {
        device.submit(at, usize::from(tenant == 0), Priority::Normal, Some(tenants[tenant]));
    }
    device.p99(0)
}

#[test]
fn a_tenant_at_a_hundred_times_its_share_costs_the_others_at_most_one_batch() {
    let (before, after) = (neighbours_p99(1, 5), neighbours_p99(100, 5));
    assert!(after <= before + LARGEST * 11 / 10, "{before:?} became {after:?}");
}

#[test]
fn a_flood_that_ages_leaves_half_of_the_device_to_the_higher_lanes() {
    let mut device = Device::new(2);
    let (start, mut next) = (device.start, 0);
    for i in 0..4_000_u32 {
        // Critical at 40 % of the device, evenly; low keeps its lane full.
        let at = start + Duration::from_micros(1_062) * i;
        while device.stepper.depth()[Priority::Low.lane()] < 3_000 && next < 40_000 {
            next += 1;
            device.submit(at, 1, Priority::Low, None);
        }
        device.submit(at, 0, Priority::Critical, None);
    }
    let p99 = device.p99(0);
    assert!(p99 <= LARGEST * 5 / 2, "{p99:?}");
    let (critical, low) = (device.latencies[0].len(), device.latencies[1].len());
    assert!(low > critical, "the flood gets what is left: {critical} critical, {low} low");
}

proptest! {
    #[test]
    fn inside_a_lane_and_tenant_the_earlier_deadline_goes_first(
        requests in prop::collection::vec((0_usize..3, 0_usize..4, 1_u64..1_000), 1..200),
    ) {
        let now = Instant::now();
        let mut stepper = Stepper::new(Config::default(), NonZeroUsize::MIN, now);
        let group = stepper.add_group(GroupConfig::up_to(positive(8)));
        let tenants = [(); 3].map(|()| stepper.add_tenant(NonZeroU32::MAX));
        for &(tenant, lane, due) in &requests {
            let request = Request::new(group, (tenant, lane, due))
                .tenant(tenants[tenant])
                .priority(Priority::ALL[lane])
                .deadline(now + Duration::from_secs(due));
            prop_assert!(stepper.submit(now, request).is_ok());
        }
        let mut latest = [[0; 4]; 3];
        let mut served = [[0_usize; 4]; 3];
        let mut total = 0;
        while let Step::Batch(batch) = stepper.step(now, 1) {
            for (tenant, lane, due) in batch.members.into_iter().map(|member| member.payload) {
                prop_assert!(latest[tenant][lane] <= due);
                latest[tenant][lane] = due;
                served[tenant][lane] += 1;
                total += 1;
                // Nobody who still waits in the lane is more than a turn (here, one row) behind.
                for other in 0..3 {
                    let waits = requests.iter().filter(|&&(t, l, _)| (t, l) == (other, lane)).count();
                    let behind = served[tenant][lane].saturating_sub(served[other][lane]);
                    prop_assert!(waits == served[other][lane] || lane > 0 || behind <= 1, "{served:?}");
                }
            }
        }
        prop_assert_eq!(total, requests.len());
    }
}

#[test]
fn a_tenant_is_refused_for_its_own_backlog_and_not_for_a_neighbours() {
    let mut device = Device::new(1);
    let (group, start) = (device.group, device.start);
    let quota = NonZeroU32::new(1_000).expect("positive");
    let [greedy, modest] = [(); 2].map(|()| device.stepper.add_tenant(quota));
    for rows in [1, FULL] {
        device.stepper.done(start, group, rows, cost(rows));
    }
    let soon = |after: Duration| start + LARGEST * 3 + after;
    // The device is busy with the first, and eight full batches of the greedy tenant's wait.
    for i in 0..9 * FULL as u32 {
        let due = start + LARGEST * 20 + Duration::from_micros(u64::from(i));
        device.stepper.submit(start, Request::new(group, 0).tenant(greedy).deadline(due)).expect("there is time");
        if i == 0 {
            assert!(matches!(device.stepper.step(start, 1), Step::Batch(_)));
        }
    }
    device.stepper.step(start, 0);
    let due_after_all = start + LARGEST * 21;
    let in_turn = |tenant| Request::new(group, 0).tenant(tenant).deadline(soon(Duration::ZERO));
    device.stepper.submit(start, in_turn(modest)).expect("its turn comes with the next batch");
    let last = Request::new(group, 0).tenant(greedy).deadline(due_after_all);
    device.stepper.submit(start, last).expect("there is time for all");
    // As many again, and the device cannot have done them all by then.
    let more = (0..12 * FULL).filter(|_| {
        let request = Request::new(group, 0).tenant(greedy).deadline(due_after_all);
        device.stepper.submit(start, request).is_err_and(|error| error.is_deadline_unmeetable())
    });
    assert!(more.count() > 0, "twenty full batches in the time of twenty, the last of them refused");
    device.stepper.submit(start, in_turn(modest)).expect("still its turn");
}
