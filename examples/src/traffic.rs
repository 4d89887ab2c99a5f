//! The load that everything is compared under: requests encoded once over kept connections, from one thread.
//!
//! It serves Volley and its peers alike, knows no protocol but HTTP/1.1, and checks of each reply that its status is 200
//! and its body as long as it should be. Whether what is in it is right is looked at before, once.

use std::cell::RefCell;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::timeout;
use volley_validate::histogram::LatencyHistogram;
use volley_validate::load::Arrivals;
use volley_validate::usage::ProcessUsage;

use crate::connection::Connection;

/// Requests under way at most in an open loop. More would say that the server does not keep up; they count as failed.
const MOST_UNDER_WAY: usize = 512;
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

/// What was measured in the window.
#[derive(Debug)]
pub struct Found {
    /// Good replies per second of the window.
    pub per_second: f64,
    /// Requests that were due in the window.
    pub offered: u64,
    /// How many of them failed.
    pub failed: u64,
    /// How the first of them failed.
    pub first_failure: Option<String>,
    /// How long good replies took from when their requests were due.
    pub latency: LatencyHistogram,
    /// Open loop: how late the generator turned to each arrival.
    pub slip: LatencyHistogram,
    /// Processor time of the server.
    pub server_cpu: Option<Duration>,
}

impl Traffic {
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
                    driver_tally.borrow_mut().ended(due, Instant::now(), Err(failure));
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
    async fn exchange(&self, connection: &mut Option<Connection>, request: &[u8]) -> Result<(), String> {
        let open = match connection {
            Some(open) => open,
            None => {
                let opened = Connection::open(self.address).await;
                connection.insert(opened.map_err(|error| format!("could not connect: {error}"))?)
            }
        };
        let (closes, outcome) = match timeout(PATIENCE, open.ask(request)).await {
            Ok(Ok(reply)) if reply.status != 200 => {
                (reply.closes, Err(format!("status {}: {}", reply.status, String::from_utf8_lossy(reply.body))))
            }
            Ok(Ok(reply)) if reply.body.len() != self.reply_bytes => {
                (reply.closes, Err(format!("{} bytes instead of {}", reply.body.len(), self.reply_bytes)))
            }
            Ok(Ok(reply)) => (reply.closes, Ok(())),
            Ok(Err(broken)) => (true, Err(broken.error.to_string())),
            Err(_) => (true, Err(format!("no reply within {PATIENCE:?}"))),
        };
        if closes {
            *connection = None;
        }
        outcome
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
        Ok(Found {
            per_second: tally.answered_in_window as f64 / self.duration.as_secs_f64(),
            offered: tally.offered,
            failed: tally.failed,
            first_failure: tally.first_failure,
            latency: tally.latency,
            slip: tally.slip,
            server_cpu,
        })
    }
}

/// Has its thread look for work without a pause.
pub async fn stay_awake(until: Instant) {
    while Instant::now() < until {
        yield_now().await;
    }
}

#[derive(Debug)]
struct Tally {
    start: Instant,
    end: Instant,
    offered: u64,
    answered_in_window: u64,
    failed: u64,
    first_failure: Option<String>,
    latency: LatencyHistogram,
    slip: LatencyHistogram,
}

impl Tally {
    fn new(traffic: &Traffic) -> Self {
        let start = Instant::now() + traffic.warmup;
        Self {
            start,
            end: start + traffic.duration,
            offered: 0,
            answered_in_window: 0,
            failed: 0,
            first_failure: None,
            latency: LatencyHistogram::new(),
            slip: LatencyHistogram::new(),
        }
    }

    fn turned(&mut self, due: Instant, turned: Instant) {
        if due >= self.start {
            self.slip.record(turned.saturating_duration_since(due));
        }
    }

    fn ended(&mut self, due: Instant, done: Instant, outcome: Result<(), String>) {
        let offered = (self.start..self.end).contains(&due);
        self.offered += u64::from(offered);
        match outcome {
            Ok(()) => {
                self.answered_in_window += u64::from((self.start..self.end).contains(&done));
                if offered {
                    self.latency.record(done.saturating_duration_since(due));
                }
            }
            Err(failure) => {
                self.failed += u64::from(offered);
                self.first_failure.get_or_insert(failure);
            }
        }
    }
}
