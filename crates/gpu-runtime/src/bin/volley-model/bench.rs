//! What each batch size costs, by variant.

use std::error::Error;
use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use serde_json::json;
use volley_gpu_runtime::Session;

use crate::Verdict;
use crate::subject::Subject;
use crate::table::table;

pub(crate) fn run(subject: &Subject, seconds: f64) -> Result<Verdict, Box<dyn Error>> {
    let limit = Duration::try_from_secs_f64(seconds).map_err(|error| format!("--seconds: {error}"))?;
    let (mut rows, mut figures) = (Vec::new(), serde_json::Map::new());
    for model in subject.load_all()? {
        let mut session = model.open_warm_session()?;
        let mut sizes = Vec::new();
        for size in model.measured().iter().map(|size| size.rows) {
            let Latencies { p50, p99, rate } = latencies(&mut session, size, limit)?;
            let [p50, p99] = [p50, p99].map(|took| took.as_secs_f64() * 1e6);
            let cells = [format!("{p50:.0}"), format!("{p99:.0}"), format!("{rate:.0}")];
            let [p50_cell, p99_cell, rate_cell] = cells;
            rows.push([model.variant().to_owned(), size.to_string(), p50_cell, p99_cell, rate_cell]);
            sizes.push(
                json!({ "rows": size, "p50_us": p50.round(), "p99_us": p99.round(), "rows_per_second": rate.round() }),
            );
        }
        figures.insert(model.variant().to_owned(), sizes.into());
    }
    let text = table(["variant", "batch", "p50 us", "p99 us", "rows/s"], &rows);
    writeln!(stdout(), "{text}\n{}", serde_json::Value::Object(figures))?;
    Ok(Verdict::Good)
}

struct Latencies {
    p50: Duration,
    p99: Duration,
    /// Rows per second over all runs.
    rate: f64,
}

fn latencies(session: &mut Session, rows: usize, limit: Duration) -> Result<Latencies, Box<dyn Error>> {
    let mut took = Vec::new();
    let started = Instant::now();
    while took.is_empty() || started.elapsed() < limit {
        let run = Instant::now();
        session.run(rows)?;
        took.push(run.elapsed());
    }
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let all: Duration = took.iter().sum();
    Ok(Latencies { p50: at(0.5), p99: at(0.99), rate: (rows * took.len()) as f64 / all.as_secs_f64() })
}
