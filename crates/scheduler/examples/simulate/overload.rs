//! The figures that the scheduler answers for under overload, and the test that holds them.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::time::Duration;

use volley_scheduler::{Config, Priority};

use crate::arrivals::{Arrival, Shape, Traffic};
use crate::device::Device;
use crate::fleet::{Scaling, Setting};
use crate::plot::Plot;
use crate::simulation::{End, History, simulate};
use crate::tally::{Table, Tally, goodput};

/// Offered load over what the device can do.
const OVERLOAD: f64 = 1.5;
const LANES: [f64; Priority::COUNT] = [0.1, 0.2, 0.6, 0.1];
const DEADLINE: Duration = Duration::from_millis(100);
/// One tenant goes to so many times its share.
const GREED: f64 = 100.0;
/// As much as a lane holds: that the neighbours keep their share is not the quota's doing.
pub(crate) const QUOTA: NonZeroU32 = NonZeroU32::new(4_096).expect("not zero");
/// Half of a largest batch: what a tenant needs who keeps to its share.
const LOW_QUOTA: NonZeroU32 = NonZeroU32::new(16).expect("not zero");
/// The load of all tenants together while each keeps to its share, over what the device can do.
const SHARED_LOAD: f64 = 0.7;

/// Batches of 4 ms and 0.3 ms a row, up to 32 rows, with noise of 30 %.
pub(crate) const DEVICE: Device =
    Device { fixed: Duration::from_millis(4), per_row: Duration::from_micros(300), noise: 0.3, max_batch: 32 };

/// Tenants that share the device, the first of which may become greedy.
#[derive(Debug, Clone, Copy)]
struct Neighbourhood {
    tenants: usize,
    lanes: [f64; Priority::COUNT],
    /// Where the first tenant's requests go, if not where the others' do.
    greedy_lane: Option<Priority>,
}

const NEIGHBOURHOOD: Neighbourhood = Neighbourhood { tenants: 10, lanes: LANES, greedy_lane: None };

/// What is promised under overload.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Answers in time, over what full batches without a pause would give.
    pub(crate) goodput_over_ceiling: f64,
    /// Accepted, answered, but late; over the accepted.
    pub(crate) late_fraction: f64,
    /// The highest lane's share of requests answered in time.
    pub(crate) top_lane_attainment: f64,
    /// Requests whose caller had not heard 5 ms after the deadline.
    pub(crate) unanswered: usize,
    /// How far a tenant's p99 moved when another went to a hundred times its share, in largest batches; a request that
    /// was not answered in time counts as long as its deadline.
    pub(crate) neighbour_p99_change: f64,
    /// How far it may: one largest batch, and a tenth of what it was.
    pub(crate) neighbour_p99_allowance: f64,
    /// Whether the same seed gave the same batches.
    pub(crate) same_seed_same_batches: bool,
}

/// Simulates `duration` of overload, twice, and of a greedy tenant. Returns the figures and a report.
pub(crate) fn overload(duration: Duration, seed: u64) -> (Figures, String) {
    let history = overloaded(duration, seed);
    let again = overloaded(duration, seed);
    let all = Tally::of(history.records.iter());
    let top = Tally::of(history.records.iter().filter(|record| record.is_in(Priority::Critical)));
    let (_, before) = NEIGHBOURHOOD.neighbours(1.0, QUOTA, duration, seed);
    let (crowded, after) = NEIGHBOURHOOD.neighbours(GREED, QUOTA, duration, seed);
    let (held, after_quota) = NEIGHBOURHOOD.neighbours(GREED, LOW_QUOTA, duration, seed);
    let figures = Figures {
        goodput_over_ceiling: goodput(&history, duration) / DEVICE.ceiling(),
        late_fraction: all.late_fraction(),
        top_lane_attainment: top.attainment(),
        unanswered: all.unanswered,
        neighbour_p99_change: batches(after) - batches(before),
        neighbour_p99_allowance: 1.0 + 0.1 * batches(before),
        same_seed_same_batches: (history.batches, history.fingerprint) == (again.batches, again.fingerprint),
    };
    let mut report = format!("{OVERLOAD} times what one device can do ({:.0} requests/s)\n\n", DEVICE.ceiling());
    // Writing to a string does not fail.
    let _ = writeln!(report, "{}\n{}", Table(&history), Plot { history: &history, duration });
    let _ = writeln!(
        report,
        "a neighbour's p99 with one of {} tenants at {GREED} times its share: {:.1} ms, before {:.1} ms\n\
         moved by {:.2} largest batches, of {:.2} allowed",
        NEIGHBOURHOOD.tenants,
        after.as_secs_f64() * 1e3,
        before.as_secs_f64() * 1e3,
        figures.neighbour_p99_change,
        figures.neighbour_p99_allowance,
    );
    let _ = writeln!(
        report,
        "refused {}, dropped {} of {} requests of the neighbours'; with a quota of {LOW_QUOTA} queued a tenant, p99 {:.1} ms, \
         refused {}, dropped {}",
        crowded.refused,
        crowded.dropped,
        crowded.offered,
        after_quota.as_secs_f64() * 1e3,
        held.refused,
        held.dropped,
    );
    (figures, report)
}

fn overloaded(duration: Duration, seed: u64) -> History {
    overloaded_by(1, duration, seed)
}

fn overloaded_by(tenants: usize, duration: Duration, seed: u64) -> History {
    let traffic = traffic(vec![OVERLOAD * DEVICE.ceiling() / tenants as f64; tenants], LANES, duration);
    simulate(setting(QUOTA), traffic.arrivals(seed), seed)
}

/// How many of the largest batches fit in this time.
fn batches(time: Duration) -> f64 {
    time.as_secs_f64() / DEVICE.largest().as_secs_f64()
}

impl Neighbourhood {
    /// What became of all tenants but the first, which asks `greed` times its share; and their p99, where a request that
    /// was not answered in time counts as long as its deadline.
    fn neighbours(&self, greed: f64, quota: NonZeroU32, duration: Duration, seed: u64) -> (Tally, Duration) {
        let mut tenants = vec![SHARED_LOAD * DEVICE.ceiling() / self.tenants as f64; self.tenants];
        tenants[0] *= greed;
        let arrivals = traffic(tenants, self.lanes, duration).arrivals(seed).map(|arrival| match self.greedy_lane {
            Some(lane) if arrival.tenant == 0 => Arrival { lane, ..arrival },
            _ => arrival,
        });
        let mut history = simulate(setting(quota), arrivals, seed);
        history.records.retain(|record| record.arrival.tenant != 0);
        let tally = Tally::of(history.records.iter());
        for record in &mut history.records {
            if !record.in_time() {
                record.end = End::Answered;
                record.told = record.arrival.at + record.arrival.deadline;
            }
        }
        (tally, Tally::of(history.records.iter()).percentile(99.0))
    }
}

fn traffic(tenants: Vec<f64>, lanes: [f64; Priority::COUNT], duration: Duration) -> Traffic {
    Traffic { shape: Shape::Steady, tenants, lanes, deadline: DEADLINE, duration }
}

fn setting(quota: NonZeroU32) -> Setting {
    Setting { config: Config::default(), device: DEVICE, quota, scaling: Scaling::fixed(1) }
}

impl Figures {
    pub(crate) fn json(&self) -> String {
        format!(
            "{{\"goodput_over_ceiling\": {:.4}, \"late_fraction\": {:.6}, \"top_lane_attainment\": {:.5}, \
             \"unanswered\": {}, \"neighbour_p99_change\": {:.3}, \"same_seed_same_batches\": {}}}",
            self.goodput_over_ceiling,
            self.late_fraction,
            self.top_lane_attainment,
            self.unanswered,
            self.neighbour_p99_change,
            u8::from(self.same_seed_same_batches),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_costs_neither_goodput_nor_the_highest_lane_and_nobody_waits_in_vain() {
        let (figures, report) = overload(Duration::from_secs(20), 1);
        assert!(figures.goodput_over_ceiling >= 0.95, "{figures:#?}\n{report}");
        assert!(figures.late_fraction <= 0.001, "{figures:#?}\n{report}");
        assert!(figures.top_lane_attainment >= 0.999, "{figures:#?}\n{report}");
        assert_eq!(figures.unanswered, 0, "{figures:#?}\n{report}");
        assert!(figures.neighbour_p99_change <= figures.neighbour_p99_allowance, "{figures:#?}\n{report}");
        assert!(figures.same_seed_same_batches, "{figures:#?}");
    }

    #[test]
    fn overload_by_many_tenants_costs_no_more_than_overload_by_one() {
        let duration = Duration::from_secs(5);
        for tenants in [3, 10] {
            let history = overloaded_by(tenants, duration, 1);
            let goodput = goodput(&history, duration) / DEVICE.ceiling();
            let all = Tally::of(history.records.iter());
            let top = Tally::of(history.records.iter().filter(|record| record.is_in(Priority::Critical)));
            let report = Table(&history);
            assert!(goodput >= 0.95, "{tenants} tenants: {goodput}\n{report}");
            assert!(all.late_fraction() <= 0.001, "{tenants} tenants\n{report}");
            assert!(top.attainment() >= 0.999, "{tenants} tenants\n{report}");
            assert_eq!(all.unanswered, 0, "{tenants} tenants\n{report}");
        }
    }

    #[test]
    fn a_greedy_tenant_moves_its_neighbours_by_no_more_than_a_batch_whatever_lanes_and_however_many_they_are() {
        let one_lane = [0.0, 0.0, 1.0, 0.0];
        for neighbourhood in [
            Neighbourhood { lanes: one_lane, ..NEIGHBOURHOOD },
            Neighbourhood { greedy_lane: Some(Priority::Critical), ..NEIGHBOURHOOD },
            Neighbourhood { greedy_lane: Some(Priority::Critical), lanes: one_lane, ..NEIGHBOURHOOD },
            Neighbourhood { tenants: 2, ..NEIGHBOURHOOD },
            Neighbourhood { tenants: 30, ..NEIGHBOURHOOD },
        ] {
            let [before, after] =
                [1.0, GREED].map(|greed| batches(neighbourhood.neighbours(greed, QUOTA, Duration::from_secs(10), 1).1));
            assert!(after - before <= 1.0 + 0.1 * before, "{before} became {after}: {neighbourhood:?}");
        }
    }
}
