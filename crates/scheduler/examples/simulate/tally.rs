//! What became of the requests, in figures.

use std::fmt;
use std::time::Duration;

use volley_scheduler::Priority;

use crate::simulation::{End, History, Record};

/// The percentiles that are reported.
const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// The ends of some requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) offered: usize,
    pub(crate) refused: usize,
    pub(crate) dropped: usize,
    pub(crate) late: usize,
    pub(crate) in_time: usize,
    /// Those whose caller had not heard this long after the deadline.
    pub(crate) unanswered: usize,
    /// From arrival to answer, shortest first.
    pub(crate) latencies: Vec<Duration>,
}

/// How long after its deadline a caller may hear at the latest.
const GRACE: Duration = Duration::from_millis(5);

impl Tally {
    pub(crate) fn of<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        let mut tally = Self::default();
        for record in records {
            tally.offered += 1;
            match record.end {
                End::Refused => tally.refused += 1,
                End::Dropped => tally.dropped += 1,
                End::Answered => tally.latencies.push(record.latency()),
            }
            tally.late += usize::from(record.late());
            tally.in_time += usize::from(record.in_time());
            tally.unanswered += usize::from(record.latency() > record.arrival.deadline + GRACE);
        }
        tally.latencies.sort_unstable();
        tally
    }

    /// The share of the offered that was answered in time; 1 if nothing was offered.
    pub(crate) fn attainment(&self) -> f64 {
        if self.offered == 0 { 1.0 } else { self.in_time as f64 / self.offered as f64 }
    }

    /// The share of the accepted that was answered, but late.
    pub(crate) fn late_fraction(&self) -> f64 {
        self.late as f64 / (self.offered - self.refused).max(1) as f64
    }

    /// Zero if nothing was answered.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        let rank = (self.latencies.len() as f64 * percent / 100.0).ceil() as usize;
        self.latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// Answers in time per second that are there before `end`.
pub(crate) fn goodput(history: &History, end: Duration) -> f64 {
    let answered = history.records.iter().filter(|record| record.in_time() && record.told <= end).count();
    answered as f64 / end.as_secs_f64()
}

/// A row per lane, and one for all.
pub(crate) struct Table<'a>(pub(crate) &'a History);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lane       offered  refused  dropped     late   in time")?;
        for percent in PERCENTILES {
            write!(f, "{:>9}", format!("p{percent}"))?;
        }
        writeln!(f, "  milliseconds from arrival to answer")?;
        let records = &self.0.records;
        for lane in Priority::ALL {
            row(f, lane.name(), &Tally::of(records.iter().filter(|record| record.is_in(lane))))?;
        }
        row(f, "all", &Tally::of(records.iter()))
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, tally: &Tally) -> fmt::Result {
    let Tally { offered, refused, dropped, late, .. } = tally;
    let attainment = tally.attainment() * 100.0;
    write!(f, "{name:<9} {offered:>8} {refused:>8} {dropped:>8} {late:>8} {attainment:>7.2} %")?;
    for percent in PERCENTILES {
        write!(f, "{:>9.1}", tally.percentile(percent).as_secs_f64() * 1e3)?;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::Arrival;

    #[test]
    fn a_tally_tells_every_end_apart() {
        let millis = Duration::from_millis;
        let arrival = Arrival { at: millis(1_000), lane: Priority::High, tenant: 0, deadline: millis(100) };
        let record = |end, after: u64| Record { arrival, end, told: millis(1_000 + after) };
        let records = [
            record(End::Refused, 0),
            record(End::Dropped, 90),
            record(End::Answered, 100),
            record(End::Answered, 105),
            record(End::Answered, 106),
        ];
        let tally = Tally::of(records.iter());
        assert_eq!((tally.offered, tally.refused, tally.dropped), (5, 1, 1));
        assert_eq!((tally.in_time, tally.late, tally.unanswered), (1, 2, 1));
        assert_eq!((tally.percentile(50.0), tally.percentile(99.0)), (millis(105), millis(106)));
        assert!((tally.late_fraction() - 0.5).abs() < 1e-9);
    }
}
