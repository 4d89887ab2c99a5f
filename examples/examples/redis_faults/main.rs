//! What Redis may do, and what becomes of requests meanwhile: each fault is made for real, under a live server at half of
//! its capacity, and each answer is compared with the model's.
//!
//! ```sh
//! just bench redis-faults              # about five minutes
//! just bench redis-faults --seconds 6
//! ```
//!
//! The server is on core 0, load and Redis are on core 1. Questions repeat, as Zipf found words to, and the first tier is too small
//! for them, so that both tiers are used. Between the faults the same load runs without any Redis; the change of the 99th
//! percentile is against the mean of the two such runs around. A fault sets in after a quarter of the run and ends at
//! its half; that the shared tier answers again before the end is part of what is checked.

mod coherence;
mod fault;
mod load;
mod proxy;
mod redis;

use std::error::Error;
use std::io::{Write as _, stdout};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};
use volley_examples::{Arguments, Caller, ServerProcess, Spread, pin_this_process};

use fault::Fault;
use load::{Load, Quiz, Seen};

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// Bytes of the first tier: a few hundred answers.
const LOCAL_BYTES: &str = "300000";

struct Row {
    name: &'static str,
    seen: Seen,
    p99_change_ms: f64,
    /// Answers from the shared tier before the fault, while it lasted, and after.
    shared_hits: [u64; 3],
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = seconds()?;
    pin_this_process(LOAD_CORE)?;
    let model = ("VOLLEY_MODELS__CNN_LSTM__VARIANTS", "[\"fp32\"]");
    let local = ("VOLLEY_CACHE__CAPACITY_BYTES", LOCAL_BYTES);
    let without = ServerProcess::start(Some(SERVER_CORE), &[model, local])?;
    let quiz = Quiz::prepare(without.http)?;
    let capacity = load::capacity(without.http)?;
    let rate = capacity / 2.0;
    let calm = || -> Seen { Load::start(without.http, &quiz, rate, Duration::from_secs_f64(seconds)).finish() };

    eprintln!("capacity {capacity:.0} requests/s without hits; {rate:.0} are asked");
    let mut out = stdout();
    writeln!(
        out,
        "{:<10} {:>8} {:>6} {:>5} {:>7} {:>7} {:>10}  shared hits before, during, after",
        "redis", "requests", "failed", "wrong", "p50 ms", "p99 ms", "change ms"
    )?;
    // The first run warms what there is to warm.
    calm();
    let mut around = calm();
    let mut rows = Vec::new();
    let mut baselines = Spread::default();
    for fault in Fault::ALL {
        eprintln!("{fault:?} ...");
        let (seen, shared_hits) = under(fault, &quiz, rate, seconds, &[model, local])?;
        let after = calm();
        let baseline = f64::midpoint(around.quantile_ms(0.99), after.quantile_ms(0.99));
        baselines.push(around.quantile_ms(0.99));
        around = after;
        let row = Row { name: fault.name(), p99_change_ms: seen.quantile_ms(0.99) - baseline, seen, shared_hits };
        writeln!(
            out,
            "{:<10} {:>8} {:>6} {:>5} {:>7.2} {:>7.2} {:>+10.2}  {}, {}, {}{}",
            row.name,
            row.seen.asked,
            row.seen.failed,
            row.seen.wrong,
            row.seen.quantile_ms(0.5),
            row.seen.quantile_ms(0.99),
            row.p99_change_ms,
            shared_hits[0],
            shared_hits[1],
            shared_hits[2],
            row.seen.first_failure.as_ref().map_or(String::new(), |failure| format!("; first failure: {failure}")),
        )?;
        rows.push(row);
    }
    baselines.push(around.quantile_ms(0.99));
    writeln!(out, "without redis the 99th percentile was {baselines:.2} ms")?;
    drop(without);

    eprintln!("two replicas ...");
    let coherence = coherence::run()?;
    writeln!(out, "{coherence}")?;

    let unrecovered: Vec<&str> = rows.iter().filter(|row| row.shared_hits[2] == 0).map(|row| row.name).collect();
    let mut figures = Map::new();
    for row in &rows {
        let Row { name, seen, p99_change_ms, .. } = row;
        figures.insert(
            (*name).into(),
            json!({ "failed": seen.failed, "wrong": seen.wrong, "p99_change_ms": rounded(*p99_change_ms) }),
        );
    }
    let faults = || rows.iter().filter(|row| row.name != Fault::None.name());
    let worst = faults().map(|row| row.p99_change_ms).fold(f64::NEG_INFINITY, f64::max);
    figures.insert("failed_total".into(), json!(rows.iter().map(|row| row.seen.failed).sum::<usize>()));
    figures.insert("wrong_total".into(), json!(rows.iter().map(|row| row.seen.wrong).sum::<usize>()));
    figures.insert("p99_change_ms_max".into(), rounded(worst));
    figures.insert("unrecovered".into(), json!(unrecovered));
    figures.insert("invalidate_ms_max".into(), rounded(coherence.invalidate_ms_max));
    figures.insert("stale_after_partition".into(), json!(coherence.stale_after_partition));
    writeln!(out, "\n{}", Value::Object(figures))?;
    Ok(())
}

/// The load while Redis does its worst, and the shared tier's hits before, during and after.
fn under(
    fault: Fault,
    quiz: &std::sync::Arc<Quiz>,
    rate: f64,
    seconds: f64,
    settings: &[(&str, &str)],
) -> Result<(Seen, [u64; 3]), Box<dyn Error>> {
    let mut site = fault.prepare()?;
    let given = site.settings();
    let mut all: Vec<(&str, &str)> = settings.to_vec();
    all.extend(given.iter().map(|(name, value)| (*name, value.as_str())));
    let server = ServerProcess::start(Some(SERVER_CORE), &all)?;
    let share = |part: f64| Duration::from_secs_f64(seconds * part);
    let load = Load::start(server.http, quiz, rate, share(1.0));
    thread::sleep(share(0.25));
    let at_fault = shared_hits(server.metrics)?;
    let lasting = share(0.25);
    site.make(lasting)?;
    let at_end_of_fault = shared_hits(server.metrics)?;
    site.mend()?;
    let seen = load.finish();
    let at_end = shared_hits(server.metrics)?;
    Ok((seen, [at_fault, at_end_of_fault - at_fault, at_end - at_end_of_fault]))
}

fn shared_hits(metrics: SocketAddr) -> Result<u64, Box<dyn Error>> {
    let text = Caller::connect(metrics)?.get("/metrics")?.text();
    let line = text.lines().find(|line| line.starts_with("batch_processing_cache_hits_total{tier=\"redis\""));
    let value = line.and_then(|line| line.rsplit_once(' ')).ok_or("no hits of the shared tier among the metrics")?.1;
    Ok(value.parse()?)
}

fn seconds() -> Result<f64, Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let seconds = arguments.take("--seconds", 12.0, "how long the load runs around each fault");
    arguments.finish()?;
    Ok(seconds)
}

fn rounded(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}
