//! `min_throughput`, `target_throughput`.

use std::time::Duration;

use crate::load::{Load, Measurement};
use crate::profile::{Profile, Thresholds};
use crate::verdict::{CheckResult, Requirement};

/// Judges the requests per second that the server sustained.
///
/// **Closed loop:** good replies within the window over its length.
///
/// **Open loop:** a schedule of 200 requests/s offers 200 only on average, and no server can answer more
/// than it is asked. So what counts is whether the server kept up: whether at least
/// `1 - error_rate target` (99 %) of the requests due in the window were answered well no later than a
/// grace after its end. The grace is the profile's target for the 99th percentile, which requests under
/// way at the end may rightly take, but no more than a fiftieth of the window, so that a backlog cannot
/// hide in it. A server that kept up sustained the schedule's nominal rate. One that did not had enough to
/// do throughout, and sustained what it did: good replies within the window over its length.
///
/// A nominal 200/s therefore passes although Poisson arrivals came to 199.4/s, and a server that can do
/// only 190 of 200 fails with 190: its backlog at the end of the window is 5 % of all requests, of which
/// the grace forgives 2 at most. Any shortfall above 3 % is found in a window of any length; over 60 s,
/// with a grace of 100 ms, one above 1.2 %.
///
/// A schedule below a threshold cannot show that the server reaches it: `not_enough`.
#[must_use]
pub fn judge(measured: &Measurement, load: &Load, profile: &Profile) -> CheckResult {
    let sustained = match load {
        Load::Closed(_) => Sustained {
            rate: (measured.offered > 0).then(|| measured.requests_per_second()),
            offered: f64::INFINITY,
            note: None,
        },
        Load::Open(open) => sustained(measured, open.nominal_rate(), profile),
    };
    let floor = profile.min_throughput;
    let requirements =
        [("min_throughput", Thresholds::new(floor, floor, floor)), ("target_throughput", profile.target_throughput)];
    let judged = requirements.into_iter().map(|(name, thresholds)| {
        let requirement = Requirement::at_least(name, "requests/s", sustained.rate, thresholds);
        let target = thresholds.target;
        if sustained.rate.is_some() && sustained.kept_up() && sustained.offered < target {
            let offered = sustained.offered;
            return requirement.not_enough(format!("{offered:.1} requests/s offered, {target} needed: raise the rate"));
        }
        match &sustained.note {
            Some(note) => requirement.noted(note.clone()),
            None => requirement,
        }
    });
    CheckResult::of("throughput", judged.collect())
}

struct Sustained {
    rate: Option<f64>,
    offered: f64,
    /// Says how far the server fell short of what was offered.
    note: Option<String>,
}

impl Sustained {
    fn kept_up(&self) -> bool {
        self.note.is_none()
    }
}

fn sustained(measured: &Measurement, nominal: f64, profile: &Profile) -> Sustained {
    let patience = Duration::try_from_secs_f64(profile.p99_latency_ms.target / 1000.0).unwrap_or(Duration::MAX);
    let grace = patience.min(measured.duration / 50);
    let kept_up = measured.kept_up(grace);
    let fell_short = kept_up.filter(|share| *share < 1.0 - profile.error_rate.target);
    Sustained {
        rate: kept_up.map(|_| match fell_short {
            None => nominal,
            Some(_) => measured.requests_per_second().min(nominal),
        }),
        offered: nominal,
        note: fell_short.map(|share| format!("kept up with {:.1} % of {nominal:.1} requests/s offered", share * 100.0)),
    }
}
