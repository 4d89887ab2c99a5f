//! What Redis may do, and what becomes of requests meanwhile: each fault is made for real, under a live server at half of
//! its capacity, and each answer is compared with the model's.
//!
//! ```sh
//! just bench redis-faults              # about ten minutes
//! just bench redis-faults --rounds 1
//! ```
//!
//! The server is on core 0, load and Redis are on core 1. Questions repeat, as Zipf found words to, and the first tier is too small
//! for them, so that both tiers are used. Between the faults the same load runs without any Redis; the change of the 99th
//! percentile is against the mean of the two such runs around. A fault sets in after a quarter of the run and ends at its
//! half; that the shared tier answers again before the end is part of what is checked. Each fault is made in each round,
//! since a shared machine stands still now and then, and the median of the changes counts.

mod coherence;
mod fault;
mod load;
mod proxy;
mod redis;

use std::error::Error;
use std::fmt;
use std::io::{Write as _, stdout};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};
use volley_examples::{Arguments, Caller, ServerProcess, Spread, pin_this_process};

use fault::Fault;
use load::{Load, Quiz, Seen, quantile_ms};

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// Bytes of the first tier: a few hundred answers.
const LOCAL_BYTES: &str = "300000";

/// What a fault did, over all rounds.
struct Row {
    name: &'static str,
    asked: usize,
    failed: usize,
    wrong: usize,
    first_failure: Option<String>,
    p50_ms: Spread,
    p99_ms: Spread,
    p99_change_ms: Spread,
    wake_p99_ms: Spread,
    /// Answers from the shared tier before the fault, while it lasted, and after, round by round.
    shared_hits: Vec<[u64; 3]>,
}

struct Options {
    seconds: f64,
    rounds: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Options { seconds, rounds } = options()?;
    pin_this_process(LOAD_CORE)?;
    let model = ("VOLLEY_MODELS__CNN_LSTM__VARIANTS", "[\"fp32\"]");
    let local = ("VOLLEY_CACHE__CAPACITY_BYTES", LOCAL_BYTES);
    let without = ServerProcess::start(Some(SERVER_CORE), &[model, local])?;
    let quiz = Quiz::prepare(without.http)?;
    let capacity = load::capacity(without.http)?;
    let rate = capacity / 2.0;
    let calm = || -> Seen { Load::start(without.http, &quiz, rate, Duration::from_secs_f64(seconds)).finish() };

    eprintln!("capacity {capacity:.0} requests/s without hits; {rate:.0} are asked");
    // The first run warms what there is to warm.
    calm();
    let mut around = quantile_ms(&calm().latency, 0.99);
    let mut baselines = Spread::default();
    baselines.push(around);
    let mut rows: Vec<Row> = Fault::ALL.iter().map(Row::of).collect();
    for round in 1..=rounds {
        for (fault, row) in Fault::ALL.into_iter().zip(&mut rows) {
            eprintln!("round {round} of {rounds}: {fault:?} ...");
            let (seen, shared_hits) = under(fault, &quiz, rate, seconds, &[model, local])?;
            let after = quantile_ms(&calm().latency, 0.99);
            row.add(&seen, f64::midpoint(around, after), shared_hits);
            eprintln!("{row}");
            baselines.push(after);
            around = after;
        }
    }
    drop(without);
    let mut out = stdout();
    writeln!(
        out,
        "{rounds} rounds; times are medians [least .. greatest], shared hits are means before, during and after\n{:<10} {:>8} {:>6} {:>5}  {:<20} {:<20} {:<26} {:<20} shared hits",
        "redis", "requests", "failed", "wrong", "p50 ms", "p99 ms", "change of p99, ms", "callers late, p99 ms"
    )?;
    for row in &rows {
        writeln!(out, "{row}")?;
    }
    writeln!(out, "without redis the 99th percentile was {baselines:.2} ms")?;

    eprintln!("two replicas ...");
    let coherence = coherence::run()?;
    writeln!(out, "{coherence}")?;

    let never = |row: &&Row| row.shared_hits.iter().any(|[_, _, after]| *after == 0);
    let unrecovered: Vec<&str> = rows.iter().filter(never).map(|row| row.name).collect();
    let mut figures = Map::new();
    for row in &rows {
        let Row { name, failed, wrong, .. } = row;
        let change = rounded(row.p99_change_ms.median());
        figures.insert((*name).into(), json!({ "failed": failed, "wrong": wrong, "p99_change_ms": change }));
    }
    let faults = || rows.iter().filter(|row| row.name != Fault::None.name());
    let worst = faults().map(|row| row.p99_change_ms.median()).fold(f64::NEG_INFINITY, f64::max);
    figures.insert("failed_total".into(), json!(rows.iter().map(|row| row.failed).sum::<usize>()));
    figures.insert("wrong_total".into(), json!(rows.iter().map(|row| row.wrong).sum::<usize>()));
    figures.insert("p99_change_ms_max".into(), rounded(worst));
    figures.insert("unrecovered".into(), json!(unrecovered));
    figures.insert("invalidate_ms_max".into(), rounded(coherence.invalidate_ms_max));
    figures.insert("stale_after_partition".into(), json!(coherence.stale_after_partition));
    writeln!(out, "\n{}", Value::Object(figures))?;
    Ok(())
}

impl Row {
    fn of(fault: &Fault) -> Self {
        Self {
            name: fault.name(),
            asked: 0,
            failed: 0,
            wrong: 0,
            first_failure: None,
            p50_ms: Spread::default(),
            p99_ms: Spread::default(),
            p99_change_ms: Spread::default(),
            wake_p99_ms: Spread::default(),
            shared_hits: Vec::new(),
        }
    }

    fn add(&mut self, seen: &Seen, baseline_ms: f64, shared_hits: [u64; 3]) {
        self.asked += seen.asked;
        self.failed += seen.failed;
        self.wrong += seen.wrong;
        self.first_failure = self.first_failure.take().or_else(|| seen.first_failure.clone());
        let p99_ms = quantile_ms(&seen.latency, 0.99);
        self.p50_ms.push(quantile_ms(&seen.latency, 0.5));
        self.p99_ms.push(p99_ms);
        self.p99_change_ms.push(p99_ms - baseline_ms);
        self.wake_p99_ms.push(quantile_ms(&seen.wake, 0.99));
        self.shared_hits.push(shared_hits);
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, asked, failed, wrong, .. } = self;
        let times = [&self.p50_ms, &self.p99_ms].map(|spread| format!("{spread:.2}"));
        let [change, late] = [&self.p99_change_ms, &self.wake_p99_ms].map(|spread| format!("{spread:.2}"));
        let mean =
            |when: usize| self.shared_hits.iter().map(|hits| hits[when]).sum::<u64>() / self.shared_hits.len() as u64;
        write!(
            f,
            "{name:<10} {asked:>8} {failed:>6} {wrong:>5}  {:<20} {:<20} {change:<26} {late:<20} {}, {}, {}",
            times[0],
            times[1],
            mean(0),
            mean(1),
            mean(2)
        )?;
        self.first_failure.as_ref().map_or(Ok(()), |failure| write!(f, "; first failure: {failure}"))
    }
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

fn options() -> Result<Options, Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let seconds = arguments.take("--seconds", 8.0, "how long the load runs around each fault");
    let rounds = arguments.take("--rounds", 3, "how often each fault is made");
    arguments.finish()?;
    Ok(Options { seconds, rounds })
}

fn rounded(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}
