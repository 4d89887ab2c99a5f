//! The load that everything is compared under: requests encoded once over kept connections, from one thread.
//!
//! It serves Volley and its peers alike, knows no protocol but HTTP/1.1, and checks of each reply that its status is 200
//! and its body as long as it should be. Whether what is in it is right is looked at before, once.

use std::cell::RefCell;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::timeout;
use volley_validate::load::Arrivals;
use volley_validate::usage::ProcessUsage;

use crate::connection::{Connection, Reply};
use crate::{Caller, Found, message};

/// Requests under way at most in an open loop. More would say that the server does not keep up; they count as failed.
const MOST_UNDER_WAY: usize = 2048;
/// Different windows that the bundled model is asked about.
const WINDOWS: usize = 1024;
/// How long a reply is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked, of whom, and for how long.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Who is asked.
    pub address: SocketAddr,
    /// Whole messages, sent in turn.
    pub requests: Rc<[Vec<u8>]>,
    /// Bytes in the body of a good reply.
    pub reply_bytes: usize,
    /// Time under load before anything is measured.
    pub warmup: Duration,
    /// Length of the measured window.
    pub duration: Duration,
    /// The server's process, if its processor time is to be read.
    pub process: Option<u32>,
}

impl Traffic {
    /// Requests to the bundled model at `address`, whose parameters, an object, are these besides `cache`: each is to be
    /// computed. Asks once, to see how long a reply is. Half a second of warm-up, and a second of measuring.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub fn to_bundled_model(address: SocketAddr, parameters: &Value) -> Result<Self, Box<dyn Error>> {
        let about = |seed, parameters: &Value| {
            let mut parameters = parameters.clone();
            parameters["cache"] = false.into();
            message::inference("cnn_lstm", "input", &[1, 50, 60], &message::window(seed), &parameters)
        };
        let answer = Caller::connect(address)?.exchange(&about(0, &json!({})))?;
        if answer.status != 200 {
            return Err(answer.text().into());
        }
        Ok(Self {
            address,
            requests: (0..WINDOWS).map(|seed| about(seed, parameters)).collect(),
            reply_bytes: answer.length(),
            warmup: Duration::from_millis(500),
            duration: Duration::from_secs(1),
            process: None,
        })
    }

    /// Keeps so many connections busy. It never sleeps meanwhile: to wake the thread of a caller on another core costs a
    /// server more, on a virtual machine several microseconds a reply, the faster the caller is than the server.
    ///
    /// # Errors
    /// When no connection can be opened, or the server's process cannot be read.
    pub async fn closed(&self, connections: usize) -> Result<Found, Box<dyn Error>> {
        let tally = Rc::new(RefCell::new(Tally::new(self)));
        let end = tally.borrow().end;
        let tasks = LocalSet::new();
        tasks.spawn_local(stay_awake(end));
        for index in 0..connections {
            let (traffic, tally) = (self.clone(), Rc::clone(&tally));
            tasks.spawn_local(async move {
                let mut connection = None;
                for request in traffic.requests.iter().cycle().skip(index) {
                    let due = Instant::now();
                    if due >= end {
                        break;
                    }
                    let outcome = traffic.exchange(&mut connection, request).await;
                    tally.borrow_mut().ended(due, Instant::now(), outcome);
                }
            });
        }
        self.measure(tasks, tally).await
    }

    /// Sends requests when they are due, whatever became of those before. Waits for each moment by polling, so that
    /// nothing but the work of this thread makes a request late: to be run on a core of its own.
    ///
    /// # Errors
    /// When the server's process cannot be read.
    pub async fn open(&self, arrivals: &Arrivals) -> Result<Found, Box<dyn Error>> {
        let tally = Rc::new(RefCell::new(Tally::new(self)));
        let begin = tally.borrow().start - self.warmup;
        let tasks = LocalSet::new();
        let (traffic, arrivals, driver_tally) = (self.clone(), arrivals.clone(), Rc::clone(&tally));
        tasks.spawn_local(async move {
            let idle = Rc::new(RefCell::new(Vec::new()));
            let under_way = Rc::new(());
            let requests = Rc::clone(&traffic.requests);
            let due = arrivals.schedule(traffic.warmup + traffic.duration).map(|offset| begin + offset);
            for (due, index) in due.zip((0..requests.len()).cycle()) {
                while Instant::now() < due {
                    yield_now().await;
                }
                driver_tally.borrow_mut().turned(due, Instant::now());
                if Rc::strong_count(&under_way) > MOST_UNDER_WAY {
                    let failure = format!("{MOST_UNDER_WAY} requests were under way already");
                    driver_tally.borrow_mut().ended(due, Instant::now(), Outcome::Failed(failure));
                    continue;
                }
                let (traffic, tally) = (traffic.clone(), Rc::clone(&driver_tally));
                let (idle, under_way) = (Rc::clone(&idle), Rc::clone(&under_way));
                spawn_local(async move {
                    // The one used last: its buffers are warm.
                    let mut connection: Option<Connection> = idle.borrow_mut().pop();
                    let outcome = traffic.exchange(&mut connection, &traffic.requests[index]).await;
                    tally.borrow_mut().ended(due, Instant::now(), outcome);
                    idle.borrow_mut().extend(connection);
                    drop(under_way);
                });
            }
        });
        self.measure(tasks, tally).await
    }

    /// One request over `connection`, which is opened where there is none and dropped where it is of no more use.
    async fn exchange(&self, connection: &mut Option<Connection>, request: &[u8]) -> Outcome {
        let open = match connection {
            Some(open) => open,
            None => match Connection::open(self.address).await {
                Ok(opened) => connection.insert(opened),
                Err(error) => return Outcome::Failed(format!("could not connect: {error}")),
            },
        };
        let (closes, outcome) = match timeout(PATIENCE, open.ask(request)).await {
            Ok(Ok(reply)) => (reply.closes, self.outcome(&reply)),
            Ok(Err(broken)) => (true, Outcome::Failed(broken.error.to_string())),
            Err(_) => (true, Outcome::Failed(format!("no reply within {PATIENCE:?}"))),
        };
        if closes {
            *connection = None;
        }
        outcome
    }

    fn outcome(&self, reply: &Reply<'_>) -> Outcome {
        let said = || format!("status {}: {}", reply.status, String::from_utf8_lossy(reply.body));
        match reply.status {
            200 if reply.body.len() == self.reply_bytes => Outcome::Answered,
            200 => Outcome::Failed(format!("{} bytes instead of {}", reply.body.len(), self.reply_bytes)),
            429 | 503 => Outcome::Refused { retry_after: reply.retry_after, said: said() },
            504 => Outcome::GivenUp(said()),
            _ => Outcome::Failed(said()),
        }
    }

    async fn measure(&self, tasks: LocalSet, tally: Rc<RefCell<Tally>>) -> Result<Found, Box<dyn Error>> {
        let (start, end) = (tally.borrow().start, tally.borrow().end);
        let cpu = || self.process.map(ProcessUsage::of).transpose().map(|usage| usage.map(|usage| usage.cpu));
        let watched = async {
            tokio::time::sleep_until(start.into()).await;
            let before = cpu()?;
            tokio::time::sleep_until(end.into()).await;
            Ok::<_, std::io::Error>(cpu()?.zip(before).map(|(after, before)| after.saturating_sub(before)))
        };
        let server_cpu = tasks.run_until(watched).await?;
        tasks.await;
        let tally = Rc::into_inner(tally).ok_or("a connection is still open")?.into_inner();
        Ok(Found { server_cpu, ..tally.found })
    }
}

/// Has its thread look for work without a pause.
pub async fn stay_awake(until: Instant) {
    while Instant::now() < until {
        yield_now().await;
    }
}

/// What became of a request.
#[derive(Debug)]
enum Outcome {
    Answered,
    Refused { retry_after: bool, said: String },
    GivenUp(String),
    Failed(String),
}

#[derive(Debug)]
struct Tally {
    start: Instant,
    end: Instant,
    found: Found,
}

impl Tally {
    fn new(traffic: &Traffic) -> Self {
        let start = Instant::now() + traffic.warmup;
        Self { start, end: start + traffic.duration, found: Found { duration: traffic.duration, ..Found::default() } }
    }

    fn turned(&mut self, due: Instant, turned: Instant) {
        if due >= self.start {
            self.found.slip.record(turned.saturating_duration_since(due));
        }
    }

    fn ended(&mut self, due: Instant, done: Instant, outcome: Outcome) {
        let found = &mut self.found;
        let is_offered = (self.start..self.end).contains(&due);
        let took = done.saturating_duration_since(due);
        found.offered += u64::from(is_offered);
        let failure = match outcome {
            Outcome::Answered => {
                found.answered += u64::from((self.start..self.end).contains(&done));
                if is_offered {
                    found.latency.record(took);
                }
                return;
            }
            Outcome::Refused { retry_after, said } => {
                if is_offered {
                    found.refusals.record(took);
                    found.refusals_without_retry_after += u64::from(!retry_after);
                }
                said
            }
            Outcome::GivenUp(said) => {
                found.given_up += u64::from(is_offered);
                said
            }
            Outcome::Failed(said) => said,
        };
        found.failed += u64::from(is_offered);
        found.first_failure.get_or_insert(failure);
    }
}
