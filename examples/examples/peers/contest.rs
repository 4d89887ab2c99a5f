//! Volley and a peer in turn, under the same load.

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use volley_examples::{Connection, Found, Spread, Traffic, message, milliseconds};
use volley_validate::load::{Arrivals, Rate};

use super::peer::{self, Peer, Wait};
use super::running::Running;

const CONNECTIONS: [usize; 2] = [32, 64];
/// Requests a second of the open loop.
const OPEN_RATE: f64 = 500.0;
/// Different windows that are asked about.
const WINDOWS: usize = 64;
/// How far a server's answer may be from ONNX Runtime's, for sums in another order.
const TOLERANCE: f32 = 1e-4;
const WARMUP: Duration = Duration::from_millis(500);
/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the rounds gave of one server.
#[derive(Default)]
pub(crate) struct Figures {
    /// Requests/s over 32 and over 64 connections.
    pub rates: [Spread; 2],
    /// The better one of each round.
    pub best_rate: Spread,
    pub p50_ms: Spread,
    pub p99_ms: Spread,
    pub slip_p99_ms: Spread,
    pub ready_ms: Spread,
    pub resident_mb: Spread,
    /// What went wrong.
    pub notes: Vec<String>,
}

/// A peer to be compared with Volley on one model file.
pub(crate) struct Contest {
    peer: Peer,
    variant: &'static str,
    model: PathBuf,
    windows: Vec<Vec<f32>>,
    /// What ONNX Runtime answers: features and prediction of each window, raw.
    expected: Vec<Vec<u8>>,
    seconds: f64,
}

impl Contest {
    pub(crate) fn new(peer: Peer, variant: &'static str, model: &Path, seconds: f64) -> Result<Self, Box<dyn Error>> {
        let windows: Vec<_> = (0..WINDOWS).map(message::window).collect();
        let expected = expected(&windows, model)?;
        Ok(Self { peer, variant, model: model.to_path_buf(), windows, expected, seconds })
    }

    /// Starts each server in turn, loads it, and ends it.
    pub(crate) async fn round(&self, volley: &mut Figures, other: &mut Figures) -> Result<(), Box<dyn Error>> {
        let (server, traffic) = self.start(Peer::Volley, Wait::TwoMilliseconds, volley).await?;
        throughput(&traffic, volley).await?;
        latency(&traffic, volley).await?;
        volley.resident_mb.push(server.resident_bytes()? as f64 / 1e6);
        drop(server);

        let (server, traffic) = self.start(self.peer, Wait::TwoMilliseconds, other).await?;
        throughput(&traffic, other).await?;
        other.resident_mb.push(server.resident_bytes()? as f64 / 1e6);
        drop(server);
        // A peer is told how long to wait when it starts.
        let (server, traffic) = self.start(self.peer, Wait::Least, other).await?;
        latency(&traffic, other).await?;
        drop(server);
        Ok(())
    }

    /// Starts `peer` and looks at its answers; how long that took until the first is one of its figures.
    async fn start(&self, peer: Peer, wait: Wait, figures: &mut Figures) -> Result<(Running, Traffic), Box<dyn Error>> {
        let mut server = Running::start(peer, self.variant, &self.model, wait)?;
        let requests: Vec<_> = self.windows.iter().map(|window| peer.request(window)).collect();
        let mut reply = until_answered(&mut server, &requests[0]).await?;
        figures.ready_ms.push(server.started.elapsed().as_secs_f64() * 1e3);
        for (request, expected) in requests.iter().zip(&self.expected) {
            reply = until_answered(&mut server, request).await?;
            check(&reply, expected).map_err(|wrong| format!("{}: {wrong}", peer.name()))?;
        }
        let traffic = Traffic {
            address: server.address,
            requests: requests.into(),
            reply_bytes: reply.len(),
            warmup: WARMUP,
            duration: Duration::from_secs_f64(self.seconds),
            process: None,
        };
        Ok((server, traffic))
    }
}

/// Asks until there is an answer: a server may not listen yet, or change what is in front of it once it does.
async fn until_answered(server: &mut Running, request: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    while server.started.elapsed() < PATIENCE {
        if let Ok(mut connection) = Connection::open(server.address).await
            && let Ok(reply) = connection.ask(request).await
            && reply.status == 200
        {
            return Ok(reply.body.to_vec());
        }
        server.check_alive()?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(format!("no answer {PATIENCE:?} after the start").into())
}

async fn throughput(traffic: &Traffic, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let mut best = 0.0_f64;
    for (connections, rates) in CONNECTIONS.into_iter().zip(&mut figures.rates) {
        let found = traffic.closed(connections).await?;
        rates.push(found.per_second());
        best = best.max(found.per_second());
        figures.notes.extend(failures(&found, &format!("{connections} connections")));
    }
    figures.best_rate.push(best);
    Ok(())
}

async fn latency(traffic: &Traffic, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let found = traffic.open(&Arrivals::Constant { rate: Rate::new(OPEN_RATE)? }).await?;
    figures.p50_ms.push(milliseconds(&found.latency, 0.5));
    figures.p99_ms.push(milliseconds(&found.latency, 0.99));
    figures.slip_p99_ms.push(milliseconds(&found.slip, 0.99));
    figures.notes.extend(failures(&found, "500 requests/s"));
    Ok(())
}

fn failures(found: &Found, load: &str) -> Option<String> {
    let first = found.first_failure.as_ref()?;
    Some(format!("{load}: {} of {} requests failed, the first: {first}", found.failed, found.offered))
}

/// Holds the end of a reply, where the raw tensors are, against what ONNX Runtime says.
fn check(body: &[u8], expected: &[u8]) -> Result<(), String> {
    let tensors = body.len().checked_sub(expected.len()).map(|start| &body[start..]);
    let tensors = tensors.ok_or_else(|| format!("a reply that is too short: {}", String::from_utf8_lossy(body)))?;
    let values = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<_>>();
    let (given, expected) = (values(tensors), values(expected));
    let off = given.iter().zip(&expected).map(|(given, expected)| (given - expected).abs()).fold(0.0, f32::max);
    if off <= TOLERANCE {
        Ok(())
    } else {
        Err(format!("an answer is off by {off}; ONNX Runtime itself says otherwise"))
    }
}

/// What ONNX Runtime itself answers to each window.
fn expected(windows: &[Vec<f32>], model: &Path) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut program = Command::new(peer::python()?);
    program.arg(peer::scripts().join("window_model.py")).envs(peer::environment(model, Wait::Least)?);
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let input: Vec<u8> = windows.iter().flat_map(|window| message::little_endian(window)).collect();
    let mut stdin = child.stdin.take().ok_or("stdin is piped")?;
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    feeder.join().map_err(|_| "the feeding thread panicked")??;
    if !output.status.success() || !output.stdout.len().is_multiple_of(windows.len()) {
        return Err("ONNX Runtime's own answers could not be had from Python".into());
    }
    Ok(output.stdout.chunks(output.stdout.len() / windows.len()).map(<[u8]>::to_vec).collect())
}
