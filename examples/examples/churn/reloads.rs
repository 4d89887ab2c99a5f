//! The model is loaded anew every second, at half of what the server can do.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;
use volley_examples::{Caller, Found, Raw, Repository, ServerProcess, Spread, Traffic, milliseconds};
use volley_gpu_runtime::Library;
use volley_validate::load::{Arrivals, Rate};

use super::SERVER_CORE;

/// Pairs of a calm stretch and one with reloads: what the machine does meanwhile happens to both.
const PAIRS: u32 = 4;
const BETWEEN_RELOADS: Duration = Duration::from_secs(1);
/// Rows of the largest batch that the bundled model is run in.
const LARGEST_BATCH: usize = 32;

pub(crate) struct Reloads {
    capacity: f64,
    calm: Found,
    reloading: Found,
    /// How long each took, in milliseconds.
    reloads: Spread,
    /// How long the model takes for its largest batch.
    batch: Duration,
}

/// Measures for `seconds` with reloads, and as long without.
pub(crate) async fn run(seconds: f64) -> Result<Reloads, Box<dyn Error>> {
    let library = Library::load(None)?.path().to_path_buf();
    let repository = Repository::new()?;
    let path = repository.root().to_str().ok_or("the temporary folder's path is not UTF-8")?;
    let settings = [
        ("VOLLEY_MODEL_REPOSITORY", path),
        ("VOLLEY_CACHE__ENABLED", "false"),
        ("VOLLEY_MODELS__CNN_LSTM__VARIANTS", "[\"int8\"]"),
    ];
    let server = ServerProcess::start(Some(SERVER_CORE), &settings)?;
    let file = repository.root().join("cnn_lstm/1/model.int8.onnx");
    let samples = Raw::start(SERVER_CORE, &library, &file)?.samples_per_second(LARGEST_BATCH, 1.0)?;

    let duration = Duration::from_secs_f64(seconds / f64::from(PAIRS));
    let traffic = Traffic { duration, ..Traffic::to_bundled_model(server.http, &json!({}))? };
    eprintln!("reloads: capacity");
    let capacity = traffic.closed(64).await?.per_second();
    let arrivals = |seed| Ok::<_, Box<dyn Error>>(Arrivals::Poisson { rate: Rate::new(capacity / 2.0)?, seed });
    let (mut calm, mut reloading, mut reloads) = (Found::default(), Found::default(), Spread::default());
    for pair in 1..=PAIRS {
        eprintln!("reloads: pair {pair} of {PAIRS}, {:.0} requests/s", capacity / 2.0);
        calm.add(traffic.open(&arrivals(pair.into())?).await?);
        let reloader = Reloader::start(server.http)?;
        reloading.add(traffic.open(&arrivals(pair.into())?).await?);
        for took in reloader.stop()? {
            reloads.push(took.as_secs_f64() * 1e3);
        }
    }
    Ok(Reloads { capacity, calm, reloading, reloads, batch: Duration::from_secs_f64(LARGEST_BATCH as f64 / samples) })
}

/// Has the model loaded anew, again and again.
struct Reloader {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Duration>, String>>,
}

impl Reloader {
    fn start(address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let mut caller = Caller::connect(address)?;
        let thread = thread::spawn(move || {
            let mut took = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                let answer = caller.post("/v2/repository/models/cnn_lstm/load", "", b"").map_err(|e| e.to_string())?;
                if answer.status != 200 {
                    return Err(format!("a reload was refused: {}", answer.text()));
                }
                took.push(started.elapsed());
                thread::sleep(BETWEEN_RELOADS.saturating_sub(started.elapsed()));
            }
            Ok(took)
        });
        Ok(Self { over, thread })
    }

    fn stop(self) -> Result<Vec<Duration>, Box<dyn Error>> {
        self.over.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| "the reloading thread panicked")??)
    }
}

impl Reloads {
    /// Requests that failed while the model was reloaded.
    pub(crate) fn failures(&self) -> u64 {
        self.reloading.failed
    }

    /// 99th percentile of the latency while the model was reloaded, in milliseconds.
    pub(crate) fn p99_ms(&self) -> f64 {
        milliseconds(&self.reloading.latency, 0.99)
    }

    /// What it may be: that of the calm stretches, a largest batch and a tenth.
    pub(crate) fn p99_allowed_ms(&self) -> f64 {
        milliseconds(&self.calm.latency, 0.99) * 1.1 + self.batch.as_secs_f64() * 1e3
    }
}

impl fmt::Display for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "reloads, int8, half of a capacity of {:.0} requests/s", self.capacity)?;
        for (name, stretch) in [("calm", &self.calm), ("reloading", &self.reloading)] {
            let slip = milliseconds(&stretch.slip, 0.99);
            let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|share| milliseconds(&stretch.latency, share));
            writeln!(
                f,
                "  {name:<25} {} requests, {} failed; p50 {p50:.2} ms, p99 {p99:.2} ms, longest {longest:.1} ms; generator {slip:.2} ms late at p99",
                stretch.offered, stretch.failed,
            )?;
            if let Some(failure) = &stretch.first_failure {
                writeln!(f, "  the first failure         {failure}")?;
            }
        }
        writeln!(f, "  reloads                   {}, each {:.0} ms", self.reloads.values().len(), self.reloads)?;
        let batch = self.batch.as_secs_f64() * 1e3;
        writeln!(
            f,
            "  p99 allowed               {:.2} ms: a largest batch ({batch:.2} ms) and a tenth above calm",
            self.p99_allowed_ms()
        )
    }
}
