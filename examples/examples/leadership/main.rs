//! Do workers that take turns leading earn their complexity over a plain dispatcher thread?
//!
//! ```sh
//! just bench leadership               # some four minutes
//! just bench leadership --report      # writes the report under docs/benchmarks as well
//! ```
//!
//! Both sides run the same order and policy; what differs is who runs it: the worker that is free anyway, or a thread of
//! its own that hands batches over. They take turns within a round.

mod dispatcher;
mod leader;
mod load;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::num::NonZeroUsize;
use std::time::Duration;

use serde_json::{Map, json};
use volley_examples::{Arguments, Spread};
use volley_scheduler::{Config, GroupConfig};

use crate::dispatcher::Dispatcher;
use crate::leader::Leaders;
use crate::load::{Device, Server, Work, open_loop, round_trip};

const MAX_BATCH: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
const LANE_CAPACITY: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
/// Shares of what the workers can do at full batches.
const LOADS: [f64; 4] = [0.02, 0.3, 0.6, 0.9];
/// What the producer takes of a core. Loads that would need more cores than there are measure nothing.
const PRODUCER: f64 = 0.5;
const TRIPS: usize = 5_000;

#[derive(Default)]
struct Side {
    p50: Spread,
    p99: Spread,
    batch: Spread,
}

struct Options {
    seconds: f64,
    rounds: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let duration = Duration::from_secs_f64(options.seconds);
    let cores = std::thread::available_parallelism()?.get() as f64;
    let mut report = format!(
        "latency in us from the moment a request is due to the end of its execution, {} rounds of {} s\n\
         workers and device, load      leaders p50, p99; batch                    dispatcher p50, p99; batch\n",
        options.rounds, options.seconds
    );
    let mut figures = Map::new();
    for device in [Device::Accelerator, Device::Core] {
        for workers in [1, 2] {
            let workers = NonZeroUsize::new(workers).ok_or("not zero")?;
            for load in LOADS {
                if device == Device::Core && load * workers.get() as f64 + PRODUCER > cores {
                    continue;
                }
                let ceiling = MAX_BATCH.get() as f64 / device.cost(MAX_BATCH.get()).as_secs_f64();
                let pace = load * ceiling * workers.get() as f64;
                let (mut leaders, mut dispatcher) = (Side::default(), Side::default());
                for _ in 0..options.rounds {
                    let work = Work::on(device);
                    measure(&mut leaders, &Leaders::start(config(), group(), workers, &work), &work, pace, duration);
                    let work = Work::on(device);
                    let side = Dispatcher::start(config(), group(), workers, work.clone());
                    measure(&mut dispatcher, &side, &work, pace, duration);
                }
                let case = format!("{workers} {device:?}, {:.0} %", load * 100.0);
                eprintln!("{case} done");
                let Side { p50, p99, batch } = &leaders;
                write!(report, "{case:<26}{p50:.0}, {p99:.0}; {:.1}", batch.median())?;
                let Side { p50, p99, batch } = &dispatcher;
                writeln!(report, "   {p50:.0}, {p99:.0}; {:.1}", batch.median())?;
                for (name, ratio) in
                    [("p50", dispatcher.p50.over(&leaders.p50)), ("p99", dispatcher.p99.over(&leaders.p99))]
                {
                    let key = format!("{workers}_{device:?}_{:.0}_{name}", load * 100.0).to_lowercase();
                    figures.insert(key, json!((ratio.median() * 1e3).round() / 1e3));
                }
            }
        }
    }
    let (mut leaders, mut dispatcher) = (Spread::default(), Spread::default());
    for _ in 0..options.rounds {
        let work = Work::on(Device::Nothing);
        let one = NonZeroUsize::MIN;
        leaders.push(micros(round_trip(&Leaders::start(config(), group(), one, &work), TRIPS)));
        dispatcher.push(micros(round_trip(&Dispatcher::start(config(), group(), one, work.clone()), TRIPS)));
    }
    writeln!(report, "\nround trip of one parked caller, nothing to execute: {leaders:.1} us, {dispatcher:.1} us")?;
    figures.insert("round_trip".into(), json!((dispatcher.over(&leaders).median() * 1e3).round() / 1e3));
    let figures = serde_json::Value::Object(figures);
    writeln!(report, "\nwhat the dispatcher takes over what the leaders take, median of the rounds:")?;
    writeln!(stdout(), "{report}{figures}")?;
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let options = Options {
        seconds: arguments.take("--seconds", 1.0, "of each measurement"),
        rounds: arguments.take("--rounds", 5, "how often each side is measured"),
    };
    arguments.finish()?;
    Ok(options)
}

fn measure(side: &mut Side, server: &impl Server, work: &Work, pace: f64, duration: Duration) {
    // The policy learns what a batch costs.
    open_loop(server, pace, duration / 5);
    work.seen();
    open_loop(server, pace, duration);
    let mut seen = work.seen();
    seen.latencies.sort_unstable();
    let percentile = |percent: usize| micros(seen.latencies[seen.latencies.len() * percent / 100]);
    side.p50.push(percentile(50));
    side.p99.push(percentile(99));
    side.batch.push(seen.latencies.len() as f64 / seen.batches as f64);
}

fn config() -> Config {
    Config { lane_capacity: LANE_CAPACITY, ..Config::default() }
}

fn group() -> GroupConfig {
    GroupConfig::up_to(MAX_BATCH)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
