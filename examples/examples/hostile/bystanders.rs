//! What others notice while somebody holds thousands of connections and does next to nothing with them.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use volley_examples::{Found, ServerProcess, Spread, Traffic, milliseconds};
use volley_validate::load::{Arrivals, Rate};
use volley_validate::usage::ProcessUsage;

use crate::SERVER_CORE;
use crate::slow::OPENED_A_SECOND;

/// Requests a second of those who mean well.
const RATES: [f64; 2] = [200.0, 500.0];
/// Files that a process has open besides connections, at most.
const OTHER_FILES: usize = 200;
/// Until the server has taken in what was opened, or noticed what is gone.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Plan {
    /// Pairs of a calm stretch and one under attack: what the machine does meanwhile happens to both.
    pub rounds: usize,
    /// Of each rate, in each stretch.
    pub seconds: f64,
    pub connections: usize,
}

#[derive(Default)]
pub(crate) struct Bystanders {
    calm: [Found; 2],
    attacked: [Found; 2],
    /// Slow connections that the server held at the end of each attack.
    held: Spread,
    /// Those that it closed until then.
    closed: Spread,
    /// Those that could not be opened.
    failed: usize,
    /// Resident bytes before the first attack, in it, and after the last.
    resident: [u64; 3],
    held_at_first: f64,
}

/// Why so many connections cannot be held by a process on this machine, if they cannot.
pub(crate) fn hindrance(connections: usize) -> Result<Option<String>, Box<dyn Error>> {
    let allowed = files_allowed()?;
    let needed = connections + OTHER_FILES;
    Ok((allowed < needed).then(|| format!("a process may have {allowed} files open here; {needed} are needed")))
}

/// Measures with and without the attack, in turns.
pub(crate) async fn run(plan: &Plan) -> Result<Bystanders, Box<dyn Error>> {
    let server = ServerProcess::start(Some(SERVER_CORE), &[])?;
    let duration = Duration::from_secs_f64(plan.seconds);
    let traffic = Traffic { duration, ..Traffic::to_bundled_model(server.http, &json!({}))? };
    let resident = || ProcessUsage::of(server.pid()).map(|usage| usage.resident_bytes);
    let others = files(&server)?;
    let held = || files(&server).map(|files| files.saturating_sub(others));
    // What the server needs under load it has from here on.
    traffic.closed(64).await?;
    let mut found = Bystanders::default();
    for round in 0..plan.rounds {
        eprintln!("slow connections: round {} of {}", round + 1, plan.rounds);
        for (stretch, rate) in found.calm.iter_mut().zip(RATES) {
            stretch.add(traffic.open(&Arrivals::Poisson { rate: Rate::new(rate)?, seed: round as u64 }).await?);
        }
        if round == 0 {
            found.resident[0] = resident()?;
        }
        let attack = Attack::start(server.http, plan.connections)?;
        let ramp = Duration::from_secs_f64(plan.connections as f64 / OPENED_A_SECOND as f64);
        // A few may be on their way to be opened anew.
        until(ramp + PATIENCE, || Ok(held()? >= plan.connections * 99 / 100)).await?;
        for (stretch, rate) in found.attacked.iter_mut().zip(RATES) {
            stretch.add(traffic.open(&Arrivals::Poisson { rate: Rate::new(rate)?, seed: round as u64 }).await?);
        }
        let (server_holds, resident) = (held()?, resident()?);
        let Counted { open, closed, failed } = attack.stop()?;
        // The server may hold some of others, the attacker some that the server has not taken in.
        let slow = open.min(server_holds);
        if round == 0 {
            (found.resident[1], found.held_at_first) = (resident, slow as f64);
        }
        found.held.push(slow as f64);
        found.closed.push(closed as f64);
        found.failed += failed;
        until(PATIENCE, || Ok(held()? <= plan.connections / 100)).await?;
    }
    found.resident[2] = resident()?;
    Ok(found)
}

/// Waits until it is so.
async fn until(patience: Duration, is_so: impl Fn() -> Result<bool, Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    let end = Instant::now() + patience;
    while !is_so()? {
        if Instant::now() > end {
            return Err(format!("the server did not come to hold what it should within {patience:?}").into());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Files that the server has open: every connection is one.
fn files(server: &ServerProcess) -> Result<usize, Box<dyn Error>> {
    Ok(fs::read_dir(format!("/proc/{}/fd", server.pid()))?.count())
}

/// How many this process may be given.
fn files_allowed() -> Result<usize, Box<dyn Error>> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).ok_or("no limit of open files")?;
    // Name in three words, soft, hard, unit.
    match line.split_whitespace().nth(4) {
        Some("unlimited") => Ok(usize::MAX),
        hard => Ok(hard.ok_or("no hard limit")?.parse()?),
    }
}

/// The attacker's connections: those that are open, those that the server closed, those that could not be opened.
struct Counted {
    open: usize,
    closed: usize,
    failed: usize,
}

/// This program as the attacker, on the core that it is on itself; ended when dropped.
struct Attack {
    child: Child,
    counts: ChildStdout,
}

impl Attack {
    fn start(address: SocketAddr, connections: usize) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new("prlimit")
            .arg(format!("--nofile={}:", files_allowed()?))
            .arg(std::env::current_exe()?)
            .args(["slow", &address.to_string(), &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let counts = child.stdout.take().ok_or("stdout is piped")?;
        Ok(Self { child, counts })
    }

    /// Ends it. What it counted.
    fn stop(mut self) -> Result<Counted, Box<dyn Error>> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.counts.read_to_string(&mut text)?;
        let mut counts = text.split_whitespace().map(str::parse);
        let mut count = || counts.next().ok_or("the attacker ended early")?.map_err(Box::<dyn Error>::from);
        Ok(Counted { open: count()?, closed: count()?, failed: count()? })
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn p99_ms(found: &Found) -> f64 {
    milliseconds(&found.latency, 0.99)
}

impl Bystanders {
    /// The least number of connections that the server held under attack.
    pub(crate) fn least_held(&self) -> f64 {
        self.held.values().iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// By how much the 99th percentile rises under attack, at the rate where it rises most.
    pub(crate) fn p99_change_ms(&self) -> f64 {
        let changes = self.attacked.iter().zip(&self.calm).map(|(attacked, calm)| p99_ms(attacked) - p99_ms(calm));
        changes.fold(f64::NEG_INFINITY, f64::max)
    }

    /// What a connection takes of the server's memory; the system's own buffers come on top.
    pub(crate) fn bytes_per_connection(&self) -> f64 {
        let [before, under, _] = self.resident;
        (under as f64 - before as f64) / self.held_at_first
    }

    /// Requests of those who mean well that failed under attack.
    pub(crate) fn failures(&self) -> u64 {
        self.attacked.iter().map(|stretch| stretch.failed).sum()
    }
}

impl fmt::Display for Bystanders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "slow connections from 16 addresses: half silent, a quarter drip a head, a quarter a body")?;
        writeln!(
            f,
            "  limits                    as they are from the start: 10,000 connections, 2,000 from an address"
        )?;
        writeln!(f, "  held                      {:.0}", self.held)?;
        writeln!(f, "  closed by the server      {:.0} in each round, and opened anew", self.closed)?;
        writeln!(f, "  could not be opened       {}", self.failed)?;
        for (rate, (calm, attacked)) in RATES.iter().zip(self.calm.iter().zip(&self.attacked)) {
            writeln!(f, "  {rate:.0} requests/s of others")?;
            for (name, stretch) in [("calm", calm), ("under attack", attacked)] {
                writeln!(
                    f,
                    "    {name:<23} {} requests, {} failed; p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms; generator {:.2} ms late at p99",
                    stretch.offered,
                    stretch.failed,
                    milliseconds(&stretch.latency, 0.5),
                    p99_ms(stretch),
                    milliseconds(&stretch.latency, 1.0),
                    milliseconds(&stretch.slip, 0.99),
                )?;
                if let Some(failure) = &stretch.first_failure {
                    writeln!(f, "    the first failure       {failure}")?;
                }
            }
            let change = p99_ms(attacked) - p99_ms(calm);
            writeln!(f, "    change of p99           {change:+.2} ms, {:+.1} %", change / p99_ms(calm) * 100.0)?;
        }
        let [before, under, after] = self.resident.map(|bytes| bytes as f64 / 1e6);
        writeln!(
            f,
            "  resident                  {before:.1} MB before, {under:.1} MB under attack, {after:.1} MB after the last"
        )?;
        writeln!(f, "  a connection              {:.0} bytes of the server's memory", self.bytes_per_connection())
    }
}
