//! The scheduler in virtual time: its own code, driven by simulated arrivals on simulated devices.
//!
//! ```sh
//! cargo run --release -p volley-scheduler --example simulate -- overload
//! cargo run --release -p volley-scheduler --example simulate -- run --shape diurnal --rate 20000 --replicas 1..50
//! cargo run --release -p volley-scheduler --example simulate -- run --trace arrivals.csv --policy deferred
//! ```
//!
//! A second of virtual time at a few thousand requests takes milliseconds, and the same seed gives the same batches, so
//! that a change of policy is tried before it is deployed. The clock never runs: the simulation tells the scheduler the
//! time, through the module [`step`](volley_scheduler::step).

mod arrivals;
mod device;
mod fleet;
mod overload;
mod plot;
mod simulation;
mod tally;

use std::error::Error;
use std::io::{Write as _, stdout};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use volley_scheduler::{Config, Policy, Priority};

use crate::arrivals::{Arrival, Shape, Traffic, read_trace};
use crate::device::Device;
use crate::fleet::{Scaling, Setting};
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
                                  the device: a batch costs fixed + rows * row, times log-normal noise (4, 0.3, 0.3, 32)";

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
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    let options = options(arguments)?;
    let duration = options.traffic.duration;
    let text = match command.as_deref() {
        Some("overload") => {
            let (figures, report) = overload::overload(duration, options.seed);
            format!("{report}\n{}", figures.json())
        }
        Some("run") => run(options)?,
        _ => return Err(USAGE.into()),
    };
    writeln!(stdout(), "{text}")?;
    Ok(())
}

fn run(options: Options) -> Result<String, Box<dyn Error>> {
    let Options { mut traffic, rate, tenants, trace, seed, replicas, config, device, quota, .. } = options;
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
    Ok(report(&history, &device, duration))
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
