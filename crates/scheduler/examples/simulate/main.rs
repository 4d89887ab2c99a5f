//! The scheduler in virtual time: its own code, driven by simulated arrivals on simulated devices.
//!
//! ```sh
//! cargo run --release -p volley-scheduler --example simulate -- overload
//! cargo run --release -p volley-scheduler --example simulate -- run --shape diurnal --rate 20000 --replicas 1..50
//! cargo run --release -p volley-scheduler --example simulate -- run --trace arrivals.csv --policy deferred
//! cargo run --release -p volley-scheduler --example simulate -- run --rate 3529 --svg overload.svg
//! ```
//!
//! A second of virtual time at a few thousand requests takes milliseconds, and the same seed gives the same batches, so
//! that a change of policy is tried before it is deployed. The clock never runs: the simulation tells the scheduler the
//! time, through the module [`step`](volley_scheduler::step).

mod arrivals;
mod device;
mod fleet;
mod overload;
mod picture;
mod plot;
mod simulation;
mod tally;

use std::error::Error;
use std::fs;
use std::io::{Write as _, stdout};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use volley_scheduler::{Config, Policy, Priority};

use crate::arrivals::{Arrival, Shape, Traffic, read_trace};
use crate::device::Device;
use crate::fleet::{Scaling, Setting};
use crate::picture::Picture;
use crate::plot::Plot;
use crate::simulation::{History, simulate};
use crate::tally::{Table, goodput};

const USAGE: &str = "\
usage: simulate overload [--seconds N] [--seed N]
       simulate run [options]

  --shape steady|bursts|diurnal   how the rate moves over time (steady)
  --period SECONDS                of the bursts or the day (60)
  --rate N                        mean requests per second, all tenants together (2000)
  --tenants N                     how many tenants share it (1)
  --quota N                       how many requests each tenant may have queued on a replica (4096)
  --lanes A,B,C,D                 the lanes' shares, critical first (0.1,0.2,0.6,0.1)
  --deadline MS                   from each arrival (100)
  --trace FILE                    replays `seconds,lane,tenant,deadline_ms` lines instead of all the above
  --seconds N                     of virtual time (60)
  --seed N                        the same seed gives the same batches (1)
  --replicas N or N..M            how many there are, or may be (1)
  --policy eager|deferred|adaptive
  --fixed-ms N --row-ms N --noise N --max-batch N
                                  the device: a batch costs fixed + rows * row, times log-normal noise (4, 0.3, 0.3, 32)
  --svg FILE                      draws the run: the requests over time, how long answers took, how many came in time";

struct Options {
    traffic: Traffic,
    rate: f64,
    tenants: usize,
    period: Duration,
    trace: Option<PathBuf>,
    seed: u64,
    replicas: RangeInclusive<usize>,
    config: Config,
    device: Device,
    quota: NonZeroU32,
    svg: Option<PathBuf>,
}

impl Options {
    /// The setting, in a line.
    fn setting(&self) -> String {
        let Self { traffic, tenants, trace, seed, replicas, config, device, .. } = self;
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let traffic = match (trace, tenants) {
            (Some(path), _) => format!("trace {}", path.display()),
            (None, 1) => format!("{} traffic, {} ms deadlines", traffic.shape.name(), millis(traffic.deadline)),
            (None, _) => format!(
                "{} traffic of {tenants} tenants, {} ms deadlines",
                traffic.shape.name(),
                millis(traffic.deadline)
            ),
        };
        let replicas = match (replicas.start(), replicas.end()) {
            (1, 1) => "1 device".to_owned(),
            (one, other) if one == other => format!("{one} devices"),
            (least, most) => format!("{least} to {most} devices"),
        };
        let Device { fixed, per_row, noise, max_batch } = device;
        format!(
            "{traffic}; {replicas}, up to {max_batch} rows a batch at {} + {} ms a row, noise {} %; {}; seed {seed}",
            millis(*fixed),
            millis(*per_row),
            noise * 100.0,
            format!("{:?}", config.policy).to_lowercase(),
        )
    }
}

fn main() -> ExitCode {
    match answer() {
        Ok(text) => {
            // Who no longer reads needs nothing.
            let _ = writeln!(stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("simulate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for, as text.
fn answer() -> Result<String, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    if std::env::args().any(|argument| argument == "--help") {
        return Ok(USAGE.to_owned());
    }
    let command = arguments.next();
    let options = options(arguments)?;
    match command.as_deref() {
        Some("overload") if options.svg.is_some() => Err("--svg draws a `run`, not `overload`".into()),
        Some("overload") => {
            let (figures, report) = overload::overload(options.traffic.duration, options.seed);
            Ok(format!("{report}\n{}", figures.json()))
        }
        Some("run") => run(options),
        _ => Err(USAGE.into()),
    }
}

fn run(options: Options) -> Result<String, Box<dyn Error>> {
    let subtitle = options.setting();
    let Options { mut traffic, rate, tenants, trace, seed, replicas, config, device, quota, svg, .. } = options;
    let setting = Setting { config, device, quota, scaling: Scaling { replicas, ..Scaling::fixed(1) } };
    let mut duration = traffic.duration;
    let arrivals: Box<dyn Iterator<Item = Arrival>> = match trace {
        Some(path) => {
            let recorded = read_trace(&path)?;
            duration = recorded.last().map(|last| last.at).ok_or("the trace holds no request")?;
            Box::new(recorded.into_iter())
        }
        None => {
            traffic.tenants = vec![rate / tenants as f64; tenants];
            Box::new(traffic.arrivals(seed))
        }
    };
    let history = simulate(setting, arrivals, seed);
    if let Some(path) = svg {
        let picture =
            Picture { history: &history, duration, title: &title(&history, &device, duration), subtitle: &subtitle };
        fs::write(&path, picture.svg()?).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(report(&history, &device, duration))
}

/// What was offered, over what can be done.
fn title(history: &History, device: &Device, duration: Duration) -> String {
    let History { records, available, .. } = history;
    let offered = records.len() as f64 / duration.as_secs_f64();
    let load = records.len() as f64 / (available * device.ceiling());
    format!("{offered:.0} requests/s offered: {load:.2} times what the devices can do")
}

fn report(history: &History, device: &Device, duration: Duration) -> String {
    let History { batches, fingerprint, available, used, .. } = history;
    let goodput = goodput(history, duration);
    format!(
        "{}\n{}\ngoodput {goodput:.0} requests/s, {:.1} % of full batches on every device\n\
         {batches} batches, devices {:.1} % busy, fingerprint {fingerprint:016x}",
        Table(history),
        Plot { history, duration },
        goodput * duration.as_secs_f64() / (available * device.ceiling()) * 100.0,
        used / available * 100.0,
    )
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let mut shape = "steady".to_owned();
    let mut options = Options {
        traffic: Traffic {
            shape: Shape::Steady,
            tenants: Vec::new(),
            lanes: [0.1, 0.2, 0.6, 0.1],
            deadline: Duration::from_millis(100),
            duration: Duration::from_secs(60),
        },
        rate: 2_000.0,
        tenants: 1,
        period: Duration::from_secs(60),
        trace: None,
        seed: 1,
        replicas: 1..=1,
        config: Config::default(),
        device: overload::DEVICE,
        quota: overload::QUOTA,
        svg: None,
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value\n{USAGE}"))?;
        let number = || value.parse::<f64>().map_err(|error| format!("{name} {value}: {error}"));
        let millis = || Ok::<_, Box<dyn Error>>(Duration::try_from_secs_f64(number()? / 1e3)?);
        match name.as_str() {
            "--shape" => shape.clone_from(&value),
            "--period" => options.period = Duration::try_from_secs_f64(number()?)?,
            "--rate" => options.rate = number()?,
            "--tenants" => options.tenants = value.parse()?,
            "--quota" => options.quota = value.parse()?,
            "--lanes" => options.traffic.lanes = lanes(&value)?,
            "--deadline" => options.traffic.deadline = millis()?,
            "--trace" => options.trace = Some(value.into()),
            "--seconds" => options.traffic.duration = Duration::try_from_secs_f64(number()?)?,
            "--seed" => options.seed = value.parse()?,
            "--replicas" => options.replicas = replicas(&value)?,
            "--policy" => options.config.policy = policy(&value)?,
            "--fixed-ms" => options.device.fixed = millis()?,
            "--row-ms" => options.device.per_row = millis()?,
            "--noise" => options.device.noise = number()?,
            "--max-batch" => options.device.max_batch = value.parse()?,
            "--svg" => options.svg = Some(value.into()),
            _ => return Err(format!("{name} is no option\n{USAGE}").into()),
        }
    }
    let period = options.period;
    options.traffic.shape = match shape.as_str() {
        "steady" => Shape::Steady,
        "bursts" => Shape::Bursts { period },
        "diurnal" => Shape::Diurnal { period },
        _ => return Err(format!("--shape {shape}: expected steady, bursts or diurnal").into()),
    };
    Ok(options)
}

fn lanes(text: &str) -> Result<[f64; Priority::COUNT], Box<dyn Error>> {
    let shares: Vec<f64> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let shares: [f64; Priority::COUNT] =
        shares.try_into().map_err(|_| format!("--lanes {text}: expected four numbers, as in 0.1,0.2,0.6,0.1"))?;
    let total: f64 = shares.iter().sum();
    if (total - 1.0).abs() > 1e-6 {
        return Err(format!("--lanes {text}: the shares add up to {total} instead of 1").into());
    }
    Ok(shares)
}

fn replicas(text: &str) -> Result<RangeInclusive<usize>, Box<dyn Error>> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let range = least.parse()?..=most.parse()?;
    if *range.start() == 0 || range.is_empty() {
        return Err(format!("--replicas {text}: expected at least one, and no fewer than that at most").into());
    }
    Ok(range)
}

fn policy(text: &str) -> Result<Policy, Box<dyn Error>> {
    match text {
        "eager" => Ok(Policy::Eager),
        "deferred" => Ok(Policy::Deferred),
        "adaptive" => Ok(Policy::Adaptive),
        _ => Err(format!("--policy {text}: expected eager, deferred or adaptive").into()),
    }
}
