//! What is left of the server when twice as much is asked as it can do: answers in time, quick refusals, level memory, and
//! how soon it is itself again.
//!
//! ```sh
//! just bench overload-live                # about four minutes
//! just bench overload-live --seconds 10
//! ```
//!
//! For each variant of the bundled model it starts `volley-server` on core 0, its cache off, and finds the capacity in a
//! closed loop from core 1, before and after. In between it sends twice that as independent users would, each request with
//! a deadline. Goodput is the answers that callers had by their deadline over those that the capacity would have given.

mod prober;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use volley_examples::{Arguments, Found, ServerProcess, Traffic, milliseconds, pin_this_process, rounded};
use volley_validate::load::{Arrivals, Rate};
use volley_validate::usage::ProcessUsage;

use prober::Prober;

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// An answer that a caller has later is worth nothing to it.
const DEADLINE: Duration = Duration::from_millis(50);
/// What a caller leaves of that for the way there and back: the server is told the rest.
const WAY: Duration = Duration::from_millis(5);
/// Offered over capacity.
const OVERLOAD: f64 = 2.0;
const WARMUP: Duration = Duration::from_secs(2);
/// Of the closed loop that finds the capacity.
const CONNECTIONS: usize = 64;
/// Between two looks at the resident memory.
const LOOK: Duration = Duration::from_millis(250);
/// How long the prober watches after the load.
const AFTERMATH: Duration = Duration::from_secs(3);

struct Options {
    seconds: f64,
}

/// What one variant did.
struct Figures {
    /// Requests/s in the closed loops before and after.
    capacity: [f64; 2],
    /// Microseconds of processor time a request at capacity.
    us_a_request: f64,
    overload: Found,
    /// Resident bytes, quarter of a second by quarter.
    resident: Vec<u64>,
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
    figures.insert("goodput_over_capacity".into(), rounded(fp32.goodput(), 3));
    figures.insert("goodput_over_capacity_int8".into(), rounded(int8.goodput(), 3));
    figures.insert("refusal_p99_ms".into(), rounded(worst(Figures::refusal_p99_ms), 2));
    figures.insert("rss_growth".into(), rounded(worst(Figures::rss_growth), 4));
    figures.insert("recovery_ms".into(), rounded(worst(|figures| figures.recovery.as_secs_f64() * 1e3), 0));
    writeln!(stdout(), "{report}\n{}", Value::Object(figures))?;
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let options = Options { seconds: arguments.take("--seconds", 60.0, "how long each variant is overloaded") };
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
    let patient =
        Traffic { duration: Duration::from_secs_f64(options.seconds / 6.0), process: Some(pid), ..traffic(json!({}))? };
    let hurried = Traffic {
        warmup: WARMUP,
        duration: Duration::from_secs_f64(options.seconds),
        process: Some(pid),
        ..traffic(json!({ "timeout": told.as_micros() as u64 }))?
    };

    eprintln!("{variant}: capacity");
    let before = patient.closed(CONNECTIONS).await?.without_failures()?;
    let rate = Rate::new(before.per_second() * OVERLOAD)?;
    eprintln!("{variant}: {:.0} requests/s for {} s", rate.per_second(), options.seconds);
    let prober = Prober::start(server.http, told)?;
    let load_ends = Instant::now() + hurried.warmup + hurried.duration;
    let watch = thread::spawn(move || resident(pid, load_ends).map_err(|error| error.to_string()));
    let overload = hurried.open(&Arrivals::Poisson { rate, seed: 1 }).await?;
    let recovery = prober.stop_after(load_ends, AFTERMATH)?;
    let resident = watch.join().map_err(|_| "the watching thread panicked")??;

    eprintln!("{variant}: capacity again");
    let after = patient.closed(CONNECTIONS).await?.without_failures()?;
    Ok(Figures {
        capacity: [before.per_second(), after.per_second()],
        us_a_request: before.server_us().ok_or("the server's process could not be read")?,
        overload,
        resident,
        recovery,
    })
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
    fn mean_capacity(&self) -> f64 {
        f64::midpoint(self.capacity[0], self.capacity[1])
    }

    /// Requests that were answered by their deadline.
    fn in_time(&self) -> u64 {
        self.overload.latency.len() - self.overload.latency.count_above(DEADLINE)
    }

    fn goodput(&self) -> f64 {
        self.in_time() as f64 / self.overload.duration.as_secs_f64() / self.mean_capacity()
    }

    fn refusal_p99_ms(&self) -> f64 {
        milliseconds(&self.overload.refusals, 0.99)
    }

    /// Of the resident memory, from the end of the run's first quarter to its end.
    fn rss_growth(&self) -> f64 {
        let from = self.resident.get(self.resident.len() / 4);
        from.zip(self.resident.last()).map_or(f64::NAN, |(&from, &to)| to as f64 / from as f64 - 1.0)
    }

    /// Microseconds of processor time for each request that was not answered: what is left when each answer is taken to
    /// cost what it costs at capacity.
    fn refusal_us(&self) -> f64 {
        let cpu = self.overload.server_cpu.map_or(f64::NAN, |cpu| cpu.as_secs_f64() * 1e6);
        (cpu - self.overload.answered as f64 * self.us_a_request) / self.overload.failed as f64
    }

    fn describe(&self, report: &mut String, variant: &str) -> Result<(), std::fmt::Error> {
        let overload = &self.overload;
        let per_second = |count: u64| count as f64 / overload.duration.as_secs_f64();
        let [before, after] = self.capacity;
        let deadline = DEADLINE.as_millis();
        writeln!(report, "{variant}")?;
        writeln!(
            report,
            "  capacity                  {before:.0} requests/s before, {after:.0} after; {:.0} us CPU each",
            self.us_a_request
        )?;
        writeln!(report, "  offered                   {:.0} requests/s", per_second(overload.offered))?;
        writeln!(report, "  answered                  {:.0} requests/s", overload.per_second())?;
        writeln!(
            report,
            "  ... within {deadline} ms          {:.0} requests/s, goodput {:.3} of capacity; p50 {:.1} ms, p99 {:.1} ms",
            per_second(self.in_time()),
            self.goodput(),
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
        writeln!(report, "  server's CPU              {:.1} us a request that was not answered", self.refusal_us())?;
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
        writeln!(report, "  recovered                 {:.0} ms after the load\n", self.recovery.as_secs_f64() * 1e3)
    }
}
