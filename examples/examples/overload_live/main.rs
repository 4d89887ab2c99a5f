//! What is left of the server when twice as much is asked as it can do: answers in time, quick refusals, level memory, and
//! how soon it is itself again.
//!
//! ```sh
//! just bench overload-live                # about four minutes
//! just bench overload-live --rounds 2
//! ```
//!
//! For each variant of the bundled model it starts `volley-server` on core 0, its cache off, and finds the capacity in a
//! closed loop from core 1. Then it sends twice that as independent users would, each request with a deadline, and finds
//! the capacity again; in rounds, because the capacity of a shared machine changes. Goodput is the answers that callers
//! had by their deadline over those that the capacity, the mean of before and after, would have given.

mod prober;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use volley_examples::{Arguments, Found, ServerProcess, Spread, Traffic, milliseconds, pin_this_process, rounded};
use volley_validate::load::{Arrivals, Rate};
use volley_validate::usage::ProcessUsage;

use prober::Prober;

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// An answer that a caller has later is worth nothing to it.
const DEADLINE: Duration = Duration::from_millis(50);
/// What a caller leaves of that for the way there and back: the server is told the rest.
const WAY: Duration = Duration::from_millis(5);
const WARMUP: Duration = Duration::from_secs(1);
/// How long the capacity is measured each time.
const CAPACITY: Duration = Duration::from_secs(2);
/// Of the closed loop that finds the capacity.
const CONNECTIONS: usize = 64;
/// Between two looks at the resident memory.
const LOOK: Duration = Duration::from_millis(250);
/// How long the prober watches after the load.
const AFTERMATH: Duration = Duration::from_secs(2);

struct Options {
    seconds: f64,
    rounds: usize,
    /// Offered over capacity.
    times: f64,
}

/// What one variant did.
#[derive(Default)]
struct Figures {
    /// Requests/s in the closed loops.
    capacity: Spread,
    /// Microseconds of the server's processor time a request there.
    us_a_request: Spread,
    /// Answers in time over those that the capacity would have given, round by round.
    goodput: Spread,
    /// Microseconds of processor time for each request that was not answered, round by round: what is left when each answer
    /// is taken to cost what it costs at capacity.
    refusal_us: Spread,
    /// All rounds of overload together.
    overload: Found,
    /// Resident bytes under overload, quarter of a second by quarter.
    resident: Vec<u64>,
    /// The slowest one.
    recovery: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    pin_this_process(LOAD_CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = ["fp32", "int8"].map(|variant| runtime.block_on(overload(&options, variant)));
    let [fp32, int8] = measured;
    let (fp32, int8) = (fp32?, int8?);
    let mut report = String::new();
    fp32.describe(&mut report, "fp32")?;
    int8.describe(&mut report, "int8")?;

    let worst = |figure: fn(&Figures) -> f64| figure(&fp32).max(figure(&int8));
    let mut figures = Map::new();
    figures.insert("goodput_over_capacity".into(), rounded(fp32.goodput.median(), 3));
    figures.insert("goodput_over_capacity_int8".into(), rounded(int8.goodput.median(), 3));
    figures.insert("refusal_p99_ms".into(), rounded(worst(Figures::refusal_p99_ms), 2));
    figures.insert("rss_growth".into(), rounded(worst(Figures::rss_growth), 4));
    figures.insert("recovery_ms".into(), rounded(worst(|figures| figures.recovery.as_secs_f64() * 1e3), 0));
    writeln!(stdout(), "{report}\n{}", Value::Object(figures))?;
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let options = Options {
        seconds: arguments.take("--seconds", 10.0, "of each round of overload"),
        rounds: arguments.take("--rounds", 6, "of each variant"),
        times: arguments.take("--times", 2.0, "the capacity is offered"),
    };
    arguments.finish()?;
    Ok(options)
}

async fn overload(options: &Options, variant: &str) -> Result<Figures, Box<dyn Error>> {
    let variants = format!("[\"{variant}\"]");
    let settings = [("VOLLEY_MODELS__CNN_LSTM__VARIANTS", variants.as_str()), ("VOLLEY_CACHE__ENABLED", "false")];
    let server = ServerProcess::start(Some(SERVER_CORE), &settings)?;
    let pid = server.pid();
    let told = DEADLINE.saturating_sub(WAY);
    let traffic = |parameters| Traffic::to_bundled_model(server.http, &parameters);
    let patient = Traffic { duration: CAPACITY, process: Some(pid), ..traffic(json!({}))? };
    let hurried = Traffic {
        warmup: WARMUP,
        duration: Duration::from_secs_f64(options.seconds),
        process: Some(pid),
        ..traffic(json!({ "timeout": told.as_micros() as u64 }))?
    };
    let capacity = async || -> Result<_, Box<dyn Error>> {
        let found = patient.closed(CONNECTIONS).await?.without_failures()?;
        let us = found.server_us().ok_or("the server's process could not be read")?;
        Ok((found.per_second(), us))
    };

    let mut figures = Figures::default();
    let mut before = capacity().await?;
    for round in 1..=options.rounds {
        let rate = Rate::new(before.0 * options.times)?;
        eprintln!("{variant}: round {round} of {}, {:.0} requests/s", options.rounds, rate.per_second());
        let prober = Prober::start(server.http, told)?;
        let load_ends = Instant::now() + hurried.warmup + hurried.duration;
        let watch = thread::spawn(move || resident(pid, load_ends).map_err(|error| error.to_string()));
        let found = hurried.open(&Arrivals::Poisson { rate, seed: round as u64 }).await?;
        figures.recovery = figures.recovery.max(prober.stop_after(load_ends, AFTERMATH)?);
        figures.resident.extend(watch.join().map_err(|_| "the watching thread panicked")??);
        let after = capacity().await?;
        figures.add(found, [before, after]);
        before = after;
    }
    Ok(figures)
}

/// What the process has resident, again and again until `end`.
fn resident(process: u32, end: Instant) -> Result<Vec<u64>, Box<dyn Error>> {
    let mut resident = Vec::new();
    thread::sleep(WARMUP);
    while Instant::now() < end {
        resident.push(ProcessUsage::of(process)?.resident_bytes);
        thread::sleep(LOOK);
    }
    Ok(resident)
}

impl Figures {
    /// What a round found; `around` are requests/s and microseconds a request at capacity, before and after it.
    fn add(&mut self, found: Found, around: [(f64, f64); 2]) {
        let [(rate_before, us_before), (rate_after, us_after)] = around;
        let (capacity, us) = (f64::midpoint(rate_before, rate_after), f64::midpoint(us_before, us_after));
        let cpu_us = found.server_cpu.map_or(f64::NAN, |cpu| cpu.as_secs_f64() * 1e6);
        self.capacity.push(capacity);
        self.us_a_request.push(us);
        self.goodput.push(in_time(&found) as f64 / found.duration.as_secs_f64() / capacity);
        self.refusal_us.push((cpu_us - found.answered as f64 * us) / found.failed as f64);
        self.overload.add(found);
    }

    fn refusal_p99_ms(&self) -> f64 {
        milliseconds(&self.overload.refusals, 0.99)
    }

    /// Of the resident memory, from the end of the run's first quarter to its end.
    fn rss_growth(&self) -> f64 {
        let from = self.resident.get(self.resident.len() / 4);
        from.zip(self.resident.last()).map_or(f64::NAN, |(&from, &to)| to as f64 / from as f64 - 1.0)
    }

    fn describe(&self, report: &mut String, variant: &str) -> Result<(), std::fmt::Error> {
        let overload = &self.overload;
        let per_second = |count: u64| count as f64 / overload.duration.as_secs_f64();
        let deadline = DEADLINE.as_millis();
        writeln!(report, "{variant}")?;
        writeln!(
            report,
            "  capacity                  {:.0} requests/s, {:.0} us CPU each",
            self.capacity, self.us_a_request
        )?;
        writeln!(report, "  offered                   {:.0} requests/s", per_second(overload.offered))?;
        writeln!(report, "  answered                  {:.0} requests/s", overload.per_second())?;
        writeln!(
            report,
            "  ... within {deadline} ms          {:.0} requests/s, goodput {:.3} of capacity; p50 {:.1} ms, p99 {:.1} ms",
            per_second(in_time(overload)),
            self.goodput,
            milliseconds(&overload.latency, 0.5),
            milliseconds(&overload.latency, 0.99),
        )?;
        writeln!(
            report,
            "  refused                   {:.0} requests/s, {} without Retry-After; p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms",
            per_second(overload.refusals.len()),
            overload.refusals_without_retry_after,
            milliseconds(&overload.refusals, 0.5),
            milliseconds(&overload.refusals, 0.99),
            milliseconds(&overload.refusals, 1.0),
        )?;
        writeln!(report, "  given up while waiting    {:.1} requests/s", per_second(overload.given_up))?;
        let others = overload.failed - overload.refusals.len() - overload.given_up;
        let first = overload.first_failure.as_deref().unwrap_or("none");
        writeln!(report, "  failed otherwise          {others}; the first that was not answered: {first}")?;
        writeln!(report, "  server's CPU              {:.1} us a request that was not answered", self.refusal_us)?;
        let (first, last) = (self.resident.first().copied().unwrap_or(0), self.resident.last().copied().unwrap_or(0));
        writeln!(
            report,
            "  resident                  {:.1} MB at first, {:.1} MB at last, growth {:.4} after the first quarter",
            first as f64 / 1e6,
            last as f64 / 1e6,
            self.rss_growth()
        )?;
        writeln!(
            report,
            "  load generator            turned to a request {:.2} ms late at p99",
            milliseconds(&overload.slip, 0.99),
        )?;
        writeln!(
            report,
            "  recovered                 at most {:.0} ms after the load\n",
            self.recovery.as_secs_f64() * 1e3
        )
    }
}

/// Requests that were answered by their deadline.
fn in_time(found: &Found) -> u64 {
    found.latency.len() - found.latency.count_above(DEADLINE)
}
