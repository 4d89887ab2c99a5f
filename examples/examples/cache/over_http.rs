//! Cache hits over HTTP against a bare echo server, in turns: same sizes, a core for the server and one for the load.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use volley_examples::{Caller, ServerProcess, Spread, Traffic, message, pin_this_process};

use crate::Options;

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// The ratio of requests a second, and that of requests in a second of the processor's time.
pub(crate) fn hit_over_echo(options: &Options, report: &mut String) -> Result<(f64, f64), Box<dyn Error>> {
    pin_this_process(LOAD_CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = ServerProcess::start(Some(SERVER_CORE), &[("VOLLEY_RUNTIME__WORKERS", "1")])?;
    let request = message::inference("cnn_lstm", "input", &[1, 50, 60], &message::window(0), &json!({}));
    let mut caller = Caller::connect(server.http)?;
    // The second answer comes from the cache.
    caller.exchange(&request)?;
    let reply = caller.exchange(&request)?.length();
    let echo = Echo::start(reply)?;

    let turn = |address, process| -> Result<_, Box<dyn Error>> {
        let traffic = Traffic {
            address,
            requests: [request.clone()].into(),
            reply_bytes: reply,
            warmup: Duration::from_millis(200),
            duration: Duration::from_secs_f64(options.seconds),
            process: Some(process),
        };
        let found = runtime.block_on(traffic.closed(options.connections))?.without_failures()?;
        let us = found.server_us().ok_or("the server's process could not be read")?;
        Ok((found.per_second(), us, us * 1e-6 * found.per_second()))
    };
    let (mut hits, mut echoes, mut hit_us, mut echo_us, mut busy) = Default::default();
    for round in 1..=options.rounds {
        eprintln!("hits over HTTP: round {round} of {}", options.rounds);
        let first = turn(echo.address, echo.child.id())?;
        let hit = turn(server.http, server.pid())?;
        let second = turn(echo.address, echo.child.id())?;
        Spread::push(&mut echoes, f64::midpoint(first.0, second.0));
        Spread::push(&mut echo_us, f64::midpoint(first.1, second.1));
        Spread::push(&mut hits, hit.0);
        Spread::push(&mut hit_us, hit.1);
        Spread::push(&mut busy, hit.2 * 100.0);
    }
    let (by_rate, by_cpu) = (hits.over(&echoes), echo_us.over(&hit_us));
    writeln!(report, "request and body of reply   {} and {reply} bytes", request.len())?;
    writeln!(
        report,
        "cache hits over HTTP        {hits:.0} requests/s, {hit_us:.1} us CPU each, core {busy:.0} % busy"
    )?;
    writeln!(report, "bare echo over HTTP         {echoes:.0} requests/s, {echo_us:.1} us CPU each")?;
    writeln!(report, "hits over echo              {by_rate:.3} by rate, {by_cpu:.3} by CPU time")?;
    Ok((by_rate.median(), by_cpu.median()))
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
