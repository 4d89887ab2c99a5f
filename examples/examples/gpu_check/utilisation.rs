//! How busy the GPU is, and how long answers take, at three rates of requests through the server.

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde_json::json;
use volley_examples::{Caller, ServerProcess, Spread};
use volley_gpu_runtime::{DeviceMonitor, Provider};
use volley_validate::load::{self, Arrivals, Load, OpenLoop, Rate};
use volley_validate::protocol::RequestOptions;
use volley_validate::subject::Subject;
use volley_validate::target::Target;

use crate::ladder::{Ladder, Step, Verdict};

/// Requests per second, each a row.
const RATES: [u32; 3] = [200, 2_000, 20_000];
/// Time under load before anything is measured.
const WARMUP: Duration = Duration::from_secs(2);
/// What must hold at each rate.
const P99: Duration = Duration::from_millis(100);
const ERROR_RATE: f64 = 0.01;
/// The share of time the GPU should be busy, in percent, at a rate that allows it: below is no fault.
const BAND: std::ops::RangeInclusive<f64> = 60.0..=80.0;

/// `fastest` is the variant that did the most samples per second by itself, which the server should have chosen.
pub(crate) fn load(
    ladder: &mut Ladder,
    provider: Provider,
    monitor: Option<&DeviceMonitor>,
    fastest: Option<&str>,
    seconds: f64,
) {
    for rate in RATES {
        if provider == Provider::Cpu && rate > RATES[0] {
            ladder.add(Step::Utilisation, &rate.to_string(), Verdict::Skipped("asked of GPUs only".into()));
            continue;
        }
        let seen = at_rate(provider, monitor, rate, seconds);
        if let Ok(seen) = &seen {
            let mut figure = |what: &str, value| ladder.figure(&format!("r{rate}_{what}"), json!(value));
            figure("p99_ms", seen.p99.as_micros() as f64 / 1e3);
            figure("error_rate", seen.error_rate);
            if let Some(percent) = seen.busy_percent {
                figure("gpu_percent", percent);
            }
        }
        ladder.add(Step::Utilisation, &rate.to_string(), seen.map(|seen| seen.verdict(fastest)));
    }
}

struct Seen {
    answered_per_second: f64,
    p99: Duration,
    error_rate: f64,
    /// The median of what the driver said.
    busy_percent: Option<f64>,
    variant: String,
    generator_busy: f64,
    server_busy: f64,
}

impl Seen {
    fn verdict(&self, fastest: Option<&str>) -> Verdict {
        let Self { answered_per_second, p99, error_rate, busy_percent, variant, generator_busy, server_busy } = self;
        let gpu = match busy_percent {
            Some(percent) if BAND.contains(percent) => format!("GPU {percent:.0} % busy, within the band of 60 to 80"),
            Some(percent) if percent < BAND.start() => format!("GPU {percent:.0} % busy, below the band of 60 to 80"),
            Some(percent) => format!("GPU {percent:.0} % busy, above the band of 60 to 80"),
            None => "no GPU to be asked how busy it is".to_owned(),
        };
        let other = fastest.filter(|fastest| fastest != variant);
        let other = other.map_or(String::new(), |fastest| format!(" (by itself {fastest} was faster)"));
        let seen = format!(
            "{answered_per_second:.0}/s answered by {variant}{other}, p99 {:.2} ms, {:.2} % errors; {gpu}\n\
             cores busy: {server_busy:.1} of the server, {generator_busy:.2} of the generator, which has one",
            p99.as_secs_f64() * 1e3,
            error_rate * 100.0
        );
        Verdict::of(*p99 < P99 && *error_rate < ERROR_RATE, seen)
    }
}

fn at_rate(
    provider: Provider,
    monitor: Option<&DeviceMonitor>,
    rate: u32,
    seconds: f64,
) -> Result<Seen, Box<dyn Error>> {
    let providers = format!("[\"{provider}\"]");
    let settings = [
        ("VOLLEY_RUNTIME__PROVIDERS", providers.as_str()),
        ("VOLLEY_RUNTIME__REQUIRE", "true"),
        ("VOLLEY_MODELS__CNN_LSTM__MAX_BATCH", "128"),
        ("VOLLEY_CACHE__ENABLED", "false"),
    ];
    let server = ServerProcess::start(None, &settings)?;
    let plan = Load::Open(OpenLoop {
        arrivals: Arrivals::Poisson { rate: Rate::new(f64::from(rate))?, seed: 1 },
        warmup: WARMUP,
        duration: Duration::from_secs_f64(seconds),
        max_connections: NonZeroUsize::new(1024).ok_or("not zero")?,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let subject = runtime.block_on(async {
        let target = Target::new(&format!("http://{}", server.http), "cnn_lstm")?;
        Ok::<_, Box<dyn Error>>(Subject::reach(target, &RequestOptions::default()).await?.with_process(server.pid())?)
    })?;
    // The driver is asked on a thread of its own: an answer takes it longer than the generator may pause.
    let (end, ended) = mpsc::channel();
    let (measured, busy) = thread::scope(|scope| {
        let watch = monitor.map(|monitor| scope.spawn(move || watch(monitor, &ended)));
        let measured = runtime.block_on(load::run(&subject, &plan, |_| {}));
        drop::<mpsc::Sender<()>>(end);
        let busy = watch.map(|watch| watch.join().expect("the driver is only asked"));
        measured.map(|measured| (measured, busy.unwrap_or_default()))
    })?;
    Ok(Seen {
        answered_per_second: measured.requests_per_second(),
        p99: measured.latency.quantile(0.99).ok_or("nothing was answered")?,
        error_rate: measured.error_rate().ok_or("nothing was asked")?,
        busy_percent: (!busy.values().is_empty()).then(|| busy.median()),
        variant: served_variant(&server)?,
        generator_busy: measured.generator.busy_cores,
        server_busy: measured.server.map_or(f64::NAN, |server| server.busy_cores),
    })
}

/// What share of the time the GPU was busy, in percent: after the warm-up, twice a second until the other end is dropped.
fn watch(monitor: &DeviceMonitor, ended: &Receiver<()>) -> Spread {
    let mut busy = Spread::default();
    let mut pause = WARMUP;
    while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        if let Some(percent) = monitor.sample().ok().and_then(|sample| sample.utilization_percent) {
            busy.push(percent);
        }
        pause = Duration::from_millis(500);
    }
    busy
}

/// The variant that the server chose: the one its metrics are about.
fn served_variant(server: &ServerProcess) -> Result<String, Box<dyn Error>> {
    let metrics = Caller::connect(server.metrics)?.get("/metrics")?.text();
    let named = metrics.split_once("variant=\"").and_then(|(_, rest)| rest.split_once('"'));
    Ok(named.ok_or("the metrics name no variant")?.0.to_owned())
}
