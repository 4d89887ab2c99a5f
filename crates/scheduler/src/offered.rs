//! How much of the device each tenant and lane asks for, and how much each tenant gets.

use std::time::{Duration, Instant};

use crate::Priority;

/// The least time over which a rate is taken.
const LEAST: Duration = Duration::from_millis(10);
/// How long what was offered counts.
const MEMORY: Duration = Duration::from_millis(200);
/// What is left of its tenant's share to the lowest lanes in a prediction, however much the others ask for.
const LEAST_LEFT: f64 = 0.05;
/// A tenant that asks for less of the device than this asks for nothing.
const NEGLIGIBLE: f64 = 1e-4;

/// The device time that arrives per unit of the workers' time, exponentially weighted, by tenant and lane.
#[derive(Debug)]
pub(crate) struct Offered {
    since: Instant,
    tenants: Vec<Demand>,
    /// The tenants that asked for anything lately.
    active: Vec<usize>,
    fair: Fair,
}

/// What one tenant asks for.
#[derive(Debug, Default, Clone)]
struct Demand {
    /// What arrived since the last update.
    nanos: [u64; Priority::COUNT],
    load: [f64; Priority::COUNT],
    is_active: bool,
}

/// How the turns divide the device between those who ask (max-min fairness).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fair {
    /// The most that a tenant gets while others want more than they have.
    most: f64,
    /// What nobody asks for.
    spare: f64,
}

impl Fair {
    /// For these loads, in any order.
    fn between(loads: &mut [f64]) -> Self {
        loads.sort_by(f64::total_cmp);
        let mut left = 1.0;
        for (i, &load) in loads.iter().enumerate() {
            let most = left / (loads.len() - i) as f64;
            if load > most {
                return Self { most, spare: 0.0 };
            }
            left -= load;
        }
        Self { most: 1.0 / loads.len().max(1) as f64, spare: left }
    }
}

impl Demand {
    fn total(&self) -> f64 {
        self.load.iter().sum()
    }
}

impl Offered {
    pub(crate) const fn new(start: Instant) -> Self {
        Self { since: start, tenants: Vec::new(), active: Vec::new(), fair: Fair { most: 1.0, spare: 0.0 } }
    }

    /// A request of this much device time arrived.
    pub(crate) fn add(&mut self, tenant: usize, lane: Priority, nanos: u64) {
        if self.tenants.len() <= tenant {
            self.tenants.resize(tenant + 1, Demand::default());
        }
        let demand = &mut self.tenants[tenant];
        demand.nanos[lane.lane()] += nanos;
        if !std::mem::replace(&mut demand.is_active, true) {
            self.active.push(tenant);
        }
    }

    /// Brings the loads up to date.
    pub(crate) fn update(&mut self, now: Instant, workers: usize) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < LEAST {
            return;
        }
        self.since = now;
        let weight = 1.0 - (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        let time = elapsed.as_nanos() as f64 * workers as f64;
        let tenants = &mut self.tenants;
        self.active.retain(|&tenant| {
            let demand = &mut tenants[tenant];
            for (load, nanos) in demand.load.iter_mut().zip(&mut demand.nanos) {
                *load += weight * (std::mem::take(nanos) as f64 / time - *load);
            }
            demand.is_active = demand.total() > NEGLIGIBLE;
            demand.is_active
        });
        let mut loads: Vec<_> = self.active.iter().map(|&tenant| tenants[tenant].total()).collect();
        self.fair = Fair::between(&mut loads);
    }

    /// The share of the device that a tenant gets if it always has something waiting.
    pub(crate) fn share(&self, tenant: usize) -> f64 {
        let load = self.tenants.get(tenant).map_or(0.0, Demand::total);
        let Fair { most, spare } = self.fair;
        if spare > 0.0 { most.max(spare + load).min(1.0) } else { most }
    }

    /// By how much a tenant's wait in each lane grows because its lanes before it go on arriving.
    pub(crate) fn stretch(&self, tenant: usize) -> [f64; Priority::COUNT] {
        let share = self.share(tenant);
        let loads = self.tenants.get(tenant).map_or([0.0; Priority::COUNT], |demand| demand.load);
        let mut before = 0.0;
        loads.map(|load| {
            let left: f64 = 1.0 - before / share;
            before += load;
            1.0 / left.max(LEAST_LEFT)
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// What a second of these loads teaches, by tenant and lane.
    fn offered(loads: &[[f64; Priority::COUNT]]) -> (Offered, Instant) {
        let mut now = Instant::now();
        let mut offered = Offered::new(now);
        for _ in 0..100 {
            now += Duration::from_millis(20);
            for (tenant, loads) in loads.iter().enumerate() {
                for (lane, load) in Priority::ALL.into_iter().zip(loads) {
                    offered.add(tenant, lane, (load * 20e6) as u64);
                }
            }
            offered.update(now, 1);
        }
        (offered, now)
    }

    fn near(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 0.02, "{found} instead of {expected}");
    }

    #[test]
    fn a_lane_waits_longer_by_what_arrives_before_it() {
        let (mut offered, now) = offered(&[[0.5, 0.25, 0.75, 0.0]]);
        for (found, expected) in offered.stretch(0).into_iter().zip([1.0, 2.0, 4.0, 20.0]) {
            near(found, expected);
        }
        offered.update(now + Duration::from_secs(2), 1);
        assert!(offered.stretch(0).into_iter().all(|stretch| stretch < 1.01), "what was offered is forgotten");
    }

    #[test]
    fn who_wants_too_much_gets_what_the_others_leave_and_stretches_no_wait_but_its_own() {
        let (offered, _) = offered(&[[0.1, 0.0, 0.1, 0.0], [0.1, 0.0, 0.0, 0.0], [5.0, 2.0, 0.0, 0.0]]);
        near(offered.share(2), 0.7);
        // A neighbour would get as much if it asked.
        near(offered.share(0), 0.7);
        near(offered.stretch(0)[3], 1.0 / (1.0 - 0.2 / 0.7));
        near(offered.stretch(2)[1], 1.0 / LEAST_LEFT);
    }

    #[test]
    fn while_nobody_wants_too_much_each_may_have_what_is_spare_or_an_equal_share() {
        let (offered, _) = offered(&[[0.7, 0.0, 0.0, 0.0], [0.0, 0.1, 0.0, 0.0]]);
        near(offered.share(0), 0.9);
        near(offered.share(1), 0.5);
    }
}
