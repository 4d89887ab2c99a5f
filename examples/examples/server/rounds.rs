//! The rounds of one variant.

use std::error::Error;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::json;
use volley_examples::{Raw, ServerProcess, Spread, Traffic, message, milliseconds};
use volley_validate::load::{Arrivals, Rate};

use super::SERVER_CORE;
use super::calls::{Calls, Echo};

const BATCHES: [usize; 6] = [2, 4, 8, 16, 32, 64];
const OPEN_RATE: f64 = 500.0;
/// Different windows that are asked about.
const WINDOWS: usize = 1024;

/// How much is measured.
pub(crate) struct Rounds {
    /// Seconds of each figure.
    pub seconds: f64,
    pub count: usize,
    pub connections: usize,
}

/// What the rounds of one variant gave.
pub(crate) struct Figures {
    pub best_batch: usize,
    pub raw: Spread,
    pub http: Spread,
    pub ratio: Spread,
    /// Calls a second.
    pub grpc: Spread,
    /// Calls a second that a bare gRPC server answers.
    pub echo: Spread,
    /// Of what raw ONNX Runtime and the bare server, one after the other on the one core, would allow together.
    pub grpc_ratio: Spread,
    /// Processor time a call, in microseconds.
    pub grpc_us: Spread,
    /// Processor time a request, in microseconds.
    pub server_us: Spread,
    /// Share of its core.
    pub server_busy: Spread,
    /// What the model itself takes for one row.
    pub one_ms: f64,
    /// Poisson, at half of the saturated rate.
    pub half: Open,
    /// 500 requests a second.
    pub steady: Open,
}

/// What callers saw that do not wait for each other.
#[derive(Default)]
pub(crate) struct Open {
    pub rate: f64,
    pub failed: u64,
    pub p50_ms: Spread,
    pub p99_ms: Spread,
    pub max_ms: f64,
    /// How late the generator itself was.
    pub slip_p99_ms: Spread,
    pub slip_max_ms: f64,
}

impl Figures {
    /// What the 99th percentile may be at half of the saturated rate.
    pub(crate) fn allowed_at_half_ms(&self) -> f64 {
        4.0 * self.one_ms + 2.0
    }
}

impl Rounds {
    pub(crate) async fn measure(&self, library: &Path, variant: &str, file: &str) -> Result<Figures, Box<dyn Error>> {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/repository/cnn_lstm/1").join(file);
        let variants = format!("[\"{variant}\"]");
        let settings = [("VOLLEY_MODELS__CNN_LSTM__VARIANTS", variants.as_str()), ("VOLLEY_CACHE__ENABLED", "false")];
        let server = ServerProcess::start(Some(SERVER_CORE), &settings)?;
        let traffic = self.traffic(&server)?;
        let calls = self.calls(&server);
        let echo_server = Echo::start(calls.reply_bytes().await?)?;
        let echo_calls = Calls { address: echo_server.address, process: None, ..calls.clone() };

        let mut raw = Raw::start(SERVER_CORE, library, &model)?;
        let mut raw = |batch, seconds| {
            thread::scope(|scope| {
                let run = scope.spawn(|| raw.samples_per_second(batch, seconds).map_err(|e| e.to_string()));
                // Awake, as the callers of the server are: a core may be faster while its neighbour rests.
                while !run.is_finished() {}
                run.join().map_err(|_| "plain ONNX Runtime could not be watched".to_owned())?
            })
        };
        eprintln!("{variant}: raw ONNX Runtime's best batch");
        let one_ms = 1e3 / raw(1, self.seconds / 2.0)?;
        let mut scan = Vec::new();
        for batch in BATCHES {
            scan.push((raw(batch, self.seconds / 4.0)?, batch));
        }
        let best_batch = scan.iter().max_by(|a, b| a.0.total_cmp(&b.0)).map_or(BATCHES[0], |best| best.1);
        let (mut rates, mut http, mut ratio) = (Spread::default(), Spread::default(), Spread::default());
        let (mut server_us, mut server_busy) = (Spread::default(), Spread::default());
        let (mut grpc, mut echo) = (Spread::default(), Spread::default());
        let (mut grpc_ratio, mut grpc_us) = (Spread::default(), Spread::default());
        for round in 1..=self.count {
            eprintln!("{variant}: round {round} of {}", self.count);
            let before = raw(best_batch, self.seconds / 2.0)?;
            let found = traffic.closed(self.connections).await?.without_failures()?;
            let after = raw(best_batch, self.seconds / 2.0)?;
            let bare = echo_calls.closed(self.connections).await?;
            let called = calls.closed(self.connections).await?;
            let raw_rate = f64::midpoint(before, after);
            rates.push(raw_rate);
            http.push(found.per_second());
            ratio.push(found.per_second() / raw_rate);
            let us = found.server_us().ok_or("the server's process could not be read")?;
            server_us.push(us);
            server_busy.push(us * 1e-6 * found.per_second());
            echo.push(bare.per_second);
            grpc.push(called.per_second);
            grpc_ratio.push(called.per_second * (1.0 / raw_rate + 1.0 / bare.per_second));
            let cpu = called.server_cpu.ok_or("the server's process could not be read")?.as_secs_f64();
            grpc_us.push(cpu * 1e6 / (called.per_second * self.seconds));
        }
        let half_rate = Rate::new(http.median() / 2.0)?;
        eprintln!("{variant}: {:.0} requests/s", half_rate.per_second());
        let half = self.open(&traffic, &Arrivals::Poisson { rate: half_rate, seed: 1 }, half_rate).await?;
        let rate = Rate::new(OPEN_RATE)?;
        eprintln!("{variant}: {OPEN_RATE:.0} requests/s");
        let steady = self.open(&traffic, &Arrivals::Constant { rate }, rate).await?;
        let raw = rates;
        Ok(Figures {
            best_batch,
            raw,
            http,
            ratio,
            grpc,
            echo,
            grpc_ratio,
            grpc_us,
            server_us,
            server_busy,
            one_ms,
            half,
            steady,
        })
    }

    fn traffic(&self, server: &ServerProcess) -> Result<Traffic, Box<dyn Error>> {
        let duration = Duration::from_secs_f64(self.seconds);
        let traffic = Traffic::to_bundled_model(server.http, &json!({}))?;
        Ok(Traffic { duration, process: Some(server.pid()), ..traffic })
    }

    fn calls(&self, server: &ServerProcess) -> Calls {
        let windows = (0..WINDOWS).map(message::window);
        let frames = windows.map(|window| message::grpc_inference("cnn_lstm", "input", &[1, 50, 60], &window).into());
        Calls {
            address: server.grpc,
            frames: frames.collect(),
            duration: Duration::from_secs_f64(self.seconds),
            process: Some(server.pid()),
        }
    }

    /// As often as there are rounds: a shared machine stands still now and then, and one standstill would decide a
    /// percentile over all of them.
    async fn open(&self, traffic: &Traffic, arrivals: &Arrivals, rate: Rate) -> Result<Open, Box<dyn Error>> {
        let mut open = Open { rate: rate.per_second(), ..Open::default() };
        for _ in 0..self.count {
            let found = traffic.open(arrivals).await?;
            open.failed += found.failed;
            open.p50_ms.push(milliseconds(&found.latency, 0.5));
            open.p99_ms.push(milliseconds(&found.latency, 0.99));
            open.max_ms = open.max_ms.max(milliseconds(&found.latency, 1.0));
            open.slip_p99_ms.push(milliseconds(&found.slip, 0.99));
            open.slip_max_ms = open.slip_max_ms.max(milliseconds(&found.slip, 1.0));
        }
        Ok(open)
    }
}
