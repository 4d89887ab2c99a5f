//! Cache hits over HTTP against a bare echo server, in turns: same sizes, a core for the server and one for the load.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use volley_examples::{ServerProcess, Spread, pin_this_process};
use volley_validate::usage::ProcessUsage;

use crate::Options;

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
const VALUES: usize = 50 * 60;

/// What one side of one round gave.
struct Turn {
    rate: f64,
    cpu_us: f64,
    busy: f64,
}

/// The ratio of requests a second, and that of requests in a second of the processor's time.
pub(crate) fn hit_over_echo(options: &Options, report: &mut String) -> Result<(f64, f64), Box<dyn Error>> {
    pin_this_process(LOAD_CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = ServerProcess::start(Some(SERVER_CORE), &[("VOLLEY_RUNTIME__WORKERS", "1")])?;
    let request = request();
    let reply = runtime.block_on(reply_to(server.http, &request))?;
    let head = reply.windows(4).position(|window| window == b"\r\n\r\n").ok_or("a reply without a head")? + 4;
    let echo = Echo::start(reply.len() - head)?;

    let (mut hits, mut echoes, mut hit_us, mut echo_us, mut busy) = Default::default();
    let turn =
        |address, pid| -> Result<Turn, Box<dyn Error>> { runtime.block_on(saturate(address, pid, &request, options)) };
    for _ in 0..options.rounds {
        let first = turn(echo.address, echo.child.id())?;
        let hit = turn(server.http, server.pid())?;
        let second = turn(echo.address, echo.child.id())?;
        Spread::push(&mut echoes, f64::midpoint(first.rate, second.rate));
        Spread::push(&mut echo_us, f64::midpoint(first.cpu_us, second.cpu_us));
        Spread::push(&mut hits, hit.rate);
        Spread::push(&mut hit_us, hit.cpu_us);
        Spread::push(&mut busy, hit.busy * 100.0);
    }
    let (by_rate, by_cpu) = (hits.over(&echoes), echo_us.over(&hit_us));
    writeln!(report, "request and reply           {} and {} bytes", request.len(), reply.len())?;
    writeln!(
        report,
        "cache hits over HTTP        {hits:.0} requests/s, {hit_us:.1} us CPU each, core {busy:.0} % busy"
    )?;
    writeln!(report, "bare echo over HTTP         {echoes:.0} requests/s, {echo_us:.1} us CPU each")?;
    writeln!(report, "hits over echo              {by_rate:.3} by rate, {by_cpu:.3} by CPU time")?;
    Ok((by_rate.median(), by_cpu.median()))
}

/// One window as raw bytes, all of its outputs asked for.
fn request() -> Vec<u8> {
    let json = json!({
        "inputs": [{
            "name": "input", "shape": [1, 50, 60], "datatype": "FP32",
            "parameters": { "binary_data_size": VALUES * 4 }
        }],
        "parameters": { "binary_data_output": true },
    })
    .to_string();
    let mut message = format!(
        "POST /v2/models/cnn_lstm/infer HTTP/1.1\r\nHost: volley\r\nInference-Header-Content-Length: {}\r\n\
         Content-Length: {}\r\n\r\n{json}",
        json.len(),
        json.len() + VALUES * 4
    )
    .into_bytes();
    message.extend((0..VALUES).flat_map(|n| ((n as f32) * 0.01).sin().to_le_bytes()));
    message
}

/// Asks until two replies are alike, so that the second came from the cache; that.
async fn reply_to(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let mut replies = Vec::new();
    for _ in 0..2 {
        stream.write_all(request).await?;
        replies.push(whole_reply(&mut stream).await?);
    }
    replies.pop().ok_or_else(|| "no reply".into())
}

async fn whole_reply(stream: &mut TcpStream) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut reply = Vec::new();
    let end = loop {
        if stream.read_buf(&mut reply).await? == 0 {
            return Err("the server hung up".into());
        }
        if let Some(at) = reply.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8(reply[..end].to_vec())?.to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(format!("the server refused: {}", String::from_utf8_lossy(&reply)).into());
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).ok_or("no length")?;
    let mut rest = vec![0; end + length.trim().parse::<usize>()? - reply.len()];
    stream.read_exact(&mut rest).await?;
    reply.extend(rest);
    Ok(reply)
}

/// Keeps `connections` requests under way, each sent when the one before it is answered.
async fn saturate(address: SocketAddr, pid: u32, request: &[u8], options: &Options) -> Result<Turn, Box<dyn Error>> {
    let length = reply_to(address, request).await?.len();
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    let (before, start) = (ProcessUsage::of(pid)?.cpu, Instant::now());
    let callers: Vec<_> = (0..options.connections)
        .map(|_| {
            let request = request.to_vec();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let mut reply = vec![0; length];
                let mut answered = 0_u64;
                while Instant::now() < end {
                    stream.write_all(&request).await?;
                    stream.read_exact(&mut reply).await?;
                    answered += u64::from(reply.starts_with(b"HTTP/1.1 200"));
                }
                Ok::<_, std::io::Error>(answered)
            })
        })
        .collect();
    let mut answered = 0;
    for caller in callers {
        answered += caller.await??;
    }
    let took = start.elapsed().as_secs_f64();
    let cpu = (ProcessUsage::of(pid)?.cpu - before).as_secs_f64();
    Ok(Turn { rate: answered as f64 / took, cpu_us: cpu * 1e6 / answered as f64, busy: cpu / took })
}

/// This program as an echo server on the server's core; ended when dropped.
struct Echo {
    child: Child,
    address: SocketAddr,
}

impl Echo {
    fn start(reply: usize) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new("taskset")
            .args(["--cpu-list", &SERVER_CORE.to_string()])
            .arg(std::env::current_exe()?)
            .args(["echo", &reply.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("stdout is piped")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()? })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
