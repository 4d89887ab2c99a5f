//! Very many hostile requests, several at a time, and good ones in between.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use volley_examples::{Resident, ServerProcess};
use volley_validate::usage::ProcessUsage;

use crate::SERVER_CORE;
use crate::attack::{Attack, Listener};
use crate::call::Call;
use crate::client::Ended;
use crate::dice::Dice;
use crate::good::Good;
use crate::probe::Probe;
use crate::visit::{self, End, Seen};

/// Connections at a time.
const CLIENTS: usize = 32;
/// A good request after so many others.
const PROBE_EVERY: u64 = 100;
/// How often the server's memory is looked at, about.
const LOOKS: u64 = 200;
/// So many that were answered wrongly are told in full.
const TOLD: usize = 5;
/// Of their bytes, from the first.
const SHOWN: usize = 200;

/// How many, and which.
pub(crate) struct Plan {
    pub seed: u64,
    pub first: u64,
    pub requests: u64,
}

/// What came of them.
#[derive(Default)]
pub(crate) struct Fuzzed {
    seed: u64,
    pub requests: u64,
    /// Answers with a status from 500 on, other than 503 and 504; over gRPC, those that say the same.
    pub five_hundreds: u64,
    pub hangs: u64,
    /// Good requests that were not answered as they were at first.
    pub wrong: u64,
    /// How often three of them were sent.
    good: u64,
    /// HTTP's statuses, and how often each came.
    statuses: BTreeMap<u16, u64>,
    /// gRPC's.
    codes: BTreeMap<u16, u64>,
    ends: BTreeMap<End, u64>,
    offences: Vec<String>,
    /// The server's memory, from the first request to the last.
    resident: Resident,
    took: Duration,
}

/// What all clients share.
struct Run {
    plan: Plan,
    good: Good,
    probe: Probe,
    server: ServerProcess,
    next: Cell<u64>,
    found: RefCell<Fuzzed>,
}

/// Sends them to a server of its own.
pub(crate) async fn run(plan: Plan) -> Result<Fuzzed, Box<dyn Error>> {
    let server = ServerProcess::start(Some(SERVER_CORE), &[])?;
    let probe = Probe::prepare(&server).await?;
    let (next, started) = (Cell::new(0), Instant::now());
    let run = Rc::new(Run { plan, good: Good::new(), probe, server, next, found: RefCell::default() });
    let clients = LocalSet::new();
    let tasks: Vec<_> = (0..CLIENTS).map(|_| clients.spawn_local(Rc::clone(&run).client())).collect();
    clients
        .run_until(async {
            for task in tasks {
                task.await?.map_err(|error| -> Box<dyn Error> { error.into() })?;
            }
            Ok::<_, Box<dyn Error>>(())
        })
        .await?;
    let run = Rc::into_inner(run).ok_or("a client is still there")?;
    let mut found = run.found.into_inner();
    found.resident.push(ProcessUsage::of(run.server.pid())?.resident_bytes);
    (found.seed, found.took) = (run.plan.seed, started.elapsed());
    Ok(found)
}

impl Run {
    /// One attack after the other, until all are done.
    async fn client(self: Rc<Self>) -> Result<(), String> {
        let mut kept = self.probe.kept();
        loop {
            let done = self.next.get();
            if done == self.plan.requests {
                return Ok(());
            }
            self.next.set(done + 1);
            if done.is_multiple_of((self.plan.requests / LOOKS).max(1)) {
                let usage = ProcessUsage::of(self.server.pid()).map_err(|error| error.to_string())?;
                self.found.borrow_mut().resident.push(usage.resident_bytes);
            }
            if done.is_multiple_of(10_000) {
                eprintln!("hostile requests: {done} of {}", self.plan.requests);
            }
            let number = self.plan.first + done;
            let mut dice = Dice::new(self.plan.seed, number);
            match Attack::draw(&self.good, &mut dice, number) {
                Attack::Call(call) => {
                    let ended = kept.grpc.call(&call).await;
                    self.found.borrow_mut().see_call(number, &call, ended.as_ref());
                }
                Attack::Bytes(raw) => {
                    let address = match raw.listener {
                        Listener::Http => self.server.http,
                        Listener::Grpc => self.server.grpc,
                        Listener::Metrics => self.server.metrics,
                        Listener::Admin => self.server.admin,
                    };
                    let stream = visit::connect(address, number).await;
                    let gone = |error| format!("nobody listens at request {number}, after {CLIENTS} others: {error}");
                    let stream = stream.map_err(gone)?;
                    let seen = visit::visit(stream, &raw).await;
                    self.found.borrow_mut().see(number, &seen, &raw.bytes);
                }
            }
            if number.is_multiple_of(PROBE_EVERY) {
                let outcome = self.probe.ask(&mut kept).await;
                self.found.borrow_mut().see_good(number, outcome);
            }
        }
    }
}

impl Fuzzed {
    fn see(&mut self, number: u64, seen: &Seen, bytes: &[u8]) {
        self.requests += 1;
        *self.ends.entry(seen.end).or_default() += 1;
        for &status in &seen.statuses {
            *self.statuses.entry(status).or_default() += 1;
            if is_five_hundred(status) {
                self.five_hundreds += 1;
                self.tell(number, &format!("status {status}"), bytes);
            }
        }
        if seen.end == End::Hung {
            self.hangs += 1;
            self.tell(number, "neither an answer nor the end of the connection", bytes);
        }
    }

    fn see_call(&mut self, number: u64, call: &Call, ended: Option<&Ended>) {
        /// By gRPC's own rules a message whose prefix lies is answered so, too.
        const INTERNAL: u16 = 13;
        const UNKNOWN: u16 = 2;
        const DATA_LOSS: u16 = 15;
        self.requests += 1;
        let (end, offence) = match ended {
            Some(&Ended::Code(code, _)) => {
                *self.codes.entry(code).or_default() += 1;
                let is_bad = matches!(code, UNKNOWN | DATA_LOSS) || (code == INTERNAL && call.is_framed);
                (End::Answered, is_bad.then(|| format!("gRPC status {code}")))
            }
            Some(&Ended::Status(status)) => {
                *self.statuses.entry(status).or_default() += 1;
                (End::Answered, is_five_hundred(status).then(|| format!("status {status}")))
            }
            Some(Ended::Closed) => (End::Closed, None),
            None => (End::Hung, None),
        };
        *self.ends.entry(end).or_default() += 1;
        if let Some(offence) = offence {
            self.five_hundreds += 1;
            self.tell(number, &format!("{offence} to {} {:?}", call.path, call.headers), &call.body);
        }
        if end == End::Hung {
            self.hangs += 1;
            self.tell(number, &format!("no answer to {} {:?}", call.path, call.headers), &call.body);
        }
    }

    fn see_good(&mut self, number: u64, outcome: Result<(), String>) {
        self.good += 1;
        if let Err(wrong) = outcome {
            self.wrong += 1;
            self.tell(number, &wrong, b"");
        }
    }

    fn tell(&mut self, number: u64, what: &str, bytes: &[u8]) {
        if self.offences.len() < TOLD {
            let mut text = format!("--first {number} --requests 1: {what}");
            if !bytes.is_empty() {
                let shown = bytes[..bytes.len().min(SHOWN)].escape_ascii();
                let _ = write!(text, "; of {} bytes, the first: {shown}", bytes.len());
            }
            self.offences.push(text);
        }
    }

    /// By how much of itself the server grew over the last half.
    pub(crate) fn growth(&self) -> f64 {
        self.resident.growth()
    }
}

fn is_five_hundred(status: u16) -> bool {
    status >= 500 && !matches!(status, 503 | 504)
}

impl fmt::Display for Fuzzed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |counts: &BTreeMap<u16, u64>| {
            counts.iter().map(|(status, count)| format!("{status}: {count}")).collect::<Vec<_>>().join(", ")
        };
        let ended = |end| self.ends.get(&end).copied().unwrap_or(0);
        let seconds = self.took.as_secs_f64();
        writeln!(
            f,
            "hostile requests, {} of seed {} in {seconds:.0} s, {CLIENTS} at a time",
            self.requests, self.seed
        )?;
        writeln!(
            f,
            "  ended by                  an answer {}, the server's closing {}, the client's leaving {}; {} hung",
            ended(End::Answered),
            ended(End::Closed),
            ended(End::Left),
            self.hangs,
        )?;
        writeln!(f, "  HTTP statuses             {}", listed(&self.statuses))?;
        writeln!(f, "  gRPC codes                {}", listed(&self.codes))?;
        writeln!(f, "  5xx but 503 and 504       {}", self.five_hundreds)?;
        writeln!(f, "  good ones in between      {}, {} answered wrongly", 3 * self.good, self.wrong)?;
        writeln!(f, "  resident                  {}, at first and after each tenth", self.resident)?;
        writeln!(f, "  growth                    {:+.4} over the last half", self.growth())?;
        for offence in &self.offences {
            writeln!(f, "  {offence}")?;
        }
        Ok(())
    }
}
