//! Drawings of characters.

use std::fmt;
use std::time::Duration;

use volley_scheduler::Priority;

use crate::simulation::{End, History, Record};

const WIDTH: usize = 72;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What was offered, answered in time and given up over time, and how large the fleet was; then, per lane, how long
/// answers took.
pub(crate) struct Plot<'a> {
    pub(crate) history: &'a History,
    pub(crate) duration: Duration,
}

impl fmt::Display for Plot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = &self.history.records;
        let per_second = WIDTH as f64 / self.duration.as_secs_f64();
        let rates = |keep: &dyn Fn(&_) -> bool| {
            let times = records.iter().filter(|&record| keep(record)).map(|record| record.arrival.at);
            histogram(times, self.duration).map(|count| count as f64 * per_second)
        };
        let offered = rates(&|_| true);
        let most = greatest(&offered);
        writeln!(
            f,
            "over {:.0} s, by time of arrival; a full block is {most:.0} requests/s",
            self.duration.as_secs_f64()
        )?;
        line(f, "offered", &offered, most)?;
        line(f, "in time", &rates(&Record::in_time), most)?;
        line(f, "given up", &rates(&|record| record.end != End::Answered), most)?;
        let sizes = &self.history.sizes;
        if sizes.iter().any(|size| size != &sizes[0]) {
            let sizes: Vec<_> = (0..WIDTH).map(|column| sizes[column * sizes.len() / WIDTH] as f64).collect();
            writeln!(f, "a full block is {:.0} replicas", greatest(&sizes))?;
            line(f, "replicas", &sizes, greatest(&sizes))?;
        }
        let answered = || records.iter().filter(|record| record.end == End::Answered);
        let longest = answered().map(Record::latency).max().unwrap_or_default();
        writeln!(
            f,
            "from arrival to answer, 0 to {:.0} ms; each lane fills its own height",
            longest.as_secs_f64() * 1e3
        )?;
        for lane in Priority::ALL {
            let latencies = answered().filter(|record| record.is_in(lane)).map(Record::latency);
            let counts = histogram(latencies, longest).map(|count| count as f64);
            line(f, lane.name(), &counts, greatest(&counts))?;
        }
        Ok(())
    }
}

fn histogram(times: impl Iterator<Item = Duration>, end: Duration) -> [u64; WIDTH] {
    let mut counts = [0; WIDTH];
    for time in times {
        let column = time.as_secs_f64() / end.as_secs_f64() * WIDTH as f64;
        counts[(column as usize).min(WIDTH - 1)] += 1;
    }
    counts
}

fn greatest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, values: &[f64], full: f64) -> fmt::Result {
    let block = |value: f64| {
        // What is there at all is seen.
        let height = (value / full * 8.0).round() as usize;
        BLOCKS[if value > 0.0 { height.clamp(1, 8) } else { 0 }]
    };
    let drawn: String = values.iter().map(|&value| block(value)).collect();
    writeln!(f, "  {name:<9} |{drawn}|")
}
