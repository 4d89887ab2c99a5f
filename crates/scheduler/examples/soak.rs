//! A hundred million requests with withdrawals, panics, hangs, deadlines and drains: none may be lost, none doubled.
//!
//! ```sh
//! cargo run --release -p volley-scheduler --example soak                       # some minutes
//! cargo run --release -p volley-scheduler --example soak -- --requests 2000000
//! ```
//!
//! Every request has a number and, in two bitmaps, a place for its outcome and one for its execution: a second visit
//! to a place is a doubled request. In the middle the scheduler is closed under full load: what it had accepted must
//! end, what it refuses is submitted to its successor. Executors that hang are replaced, some of them as they finish
//! after all.

use std::error::Error;
use std::io::{Write as _, stdout};
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use volley_scheduler::{Batch, Config, Failure, GroupConfig, GroupId, Priority, Request, Scheduler, Ticket, Worker};

const WORKERS: usize = 2;
const PRODUCERS: usize = 2;
/// Requests a producer keeps under way.
const WINDOW: usize = 1_024;
/// Too few for the windows of all producers, so that lanes are full now and then.
const LANE_CAPACITY: usize = 384;
/// A kept ticket without an outcome for this long is lost.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// A batch that takes this long is given up.
const STUCK_AFTER: Duration = Duration::from_millis(3);
const REPORT_EVERY: u64 = 10_000_000;

/// A bit per request.
struct Bitmap(Box<[AtomicU64]>);

impl Bitmap {
    fn new(bits: u64) -> Self {
        Self((0..bits.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Sets the bit; whether it was set before.
    fn visit(&self, number: u64) -> bool {
        let bit = 1 << (number % 64);
        self.0[(number / 64) as usize].fetch_or(bit, Ordering::AcqRel) & bit != 0
    }

    fn contains(&self, number: u64) -> bool {
        self.0[(number / 64) as usize].load(Ordering::Acquire) >> (number % 64) & 1 != 0
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }
}

/// What happened so far.
struct Ledger {
    requests: u64,
    /// The number of the next request, and those that a closed scheduler gave back.
    next: AtomicU64,
    given_back: Mutex<Vec<u64>>,
    submitted: AtomicU64,
    ended: Bitmap,
    executed: Bitmap,
    /// What was given up while it was being executed, or about to be.
    abandoned: Bitmap,
    /// How often each way to end, or to be refused, was met.
    counts: [AtomicU64; End::ALL.len()],
}

#[derive(Debug, Clone, Copy)]
enum End {
    Answered,
    Withdrawn,
    Dropped,
    Panicked,
    Unanswered,
    Abandoned,
    /// No outcome came.
    Lost,
    /// An outcome, or an execution, too many.
    Doubled,
    /// Refused, and submitted again in another way.
    Full,
    NoTime,
    Closed,
}

impl End {
    const ALL: [Self; 11] = [
        Self::Answered,
        Self::Withdrawn,
        Self::Dropped,
        Self::Panicked,
        Self::Unanswered,
        Self::Abandoned,
        Self::Lost,
        Self::Doubled,
        Self::Full,
        Self::NoTime,
        Self::Closed,
    ];
}

impl Ledger {
    fn new(requests: u64) -> Self {
        Self {
            requests,
            next: AtomicU64::new(0),
            given_back: Mutex::new(Vec::new()),
            submitted: AtomicU64::new(0),
            ended: Bitmap::new(requests),
            executed: Bitmap::new(requests),
            abandoned: Bitmap::new(requests),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn count(&self, end: End) {
        self.counts[end as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn counted(&self, end: End) -> u64 {
        self.counts[end as usize].load(Ordering::Relaxed)
    }

    fn end(&self, number: u64, end: End) {
        self.count(end);
        if matches!(end, End::Abandoned) {
            self.abandoned.visit(number);
        }
        if self.ended.visit(number) {
            self.count(End::Doubled);
        }
    }

    fn execute(&self, number: u64) {
        // What has ended must not be computed, unless it was given up meanwhile; nor anything twice.
        let has_ended = self.ended.contains(number) && !self.abandoned.contains(number);
        if self.executed.visit(number) || has_ended {
            self.count(End::Doubled);
        }
    }

    /// A number that was never given out; none if all were.
    fn next(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.requests).then_some(number)
    }
}

/// A pseudo-random walk (Marsaglia's xorshift with a multiplier): a run is its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % sides
    }
}

/// What the executor's own panics carry, to tell them from real ones.
struct Deliberate;

fn main() -> Result<(), Box<dyn Error>> {
    let requests = requests()?;
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Deliberate>() {
            report(info);
        }
    }));
    let ledger = Ledger::new(requests);
    let start = Instant::now();
    serve(&ledger, Some(requests / 2));
    eprintln!("drained in the middle after {:.0} s", start.elapsed().as_secs_f64());
    serve(&ledger, None);
    write!(stdout(), "{}", summary(&ledger, start.elapsed()))?;
    judge(&ledger)
}

fn requests() -> Result<u64, Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(100_000_000),
        ["--requests", count] => Ok(count.parse().map_err(|error| format!("--requests {count}: {error}"))?),
        _ => Err("usage: soak [--requests N]".into()),
    }
}

/// One scheduler's life: it takes requests until there are no more, or until somebody closes it at number `close_at`,
/// while they still come.
fn serve(ledger: &Ledger, close_at: Option<u64>) {
    let config = Config { lane_capacity: positive(LANE_CAPACITY), ..Config::default() };
    let (scheduler, workers) = Scheduler::new(config, positive(WORKERS));
    let groups = [4, 16, 64].map(|rows| scheduler.add_group(GroupConfig::up_to(positive(rows))));
    let seed = close_at.unwrap_or(ledger.requests);
    let given_back = std::mem::take(&mut *ledger.given_back.lock().expect("no holder panics"));
    let producing = AtomicUsize::new(PRODUCERS);
    let producing = &producing;
    thread::scope(|scope| {
        for worker in workers {
            employ(scope, ledger, worker, seed);
        }
        let timekeeper = scheduler.timekeeper().expect("nobody asked for it before");
        scope.spawn(move || timekeeper.run());
        let watched = scheduler.clone();
        scope.spawn(move || watch(scope, ledger, &watched, seed, producing));
        for number in 0..PRODUCERS {
            let dice = Dice((seed ^ (number as u64 + 1) << 40) | 1);
            let open = Vec::with_capacity(WINDOW);
            let mut producer = Producer { ledger, scheduler: scheduler.clone(), groups, dice, open };
            let share = given_back.iter().copied().skip(number).step_by(PRODUCERS);
            scope.spawn(move || {
                producer.produce(share, close_at);
                producing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        drop(scheduler);
    });
}

/// Runs a worker on a thread of its own.
fn employ<'scope>(scope: &'scope Scope<'scope, '_>, ledger: &'scope Ledger, worker: Worker<u64, u64>, seed: u64) {
    let mut dice = Dice(seed + worker.number() as u64 + 1);
    scope.spawn(move || worker.run(|batch: &mut Batch<u64, u64>| execute(ledger, batch, &mut dice)));
}

/// Replaces the workers whose batches take too long, while somebody is `producing`.
fn watch<'scope>(
    scope: &'scope Scope<'scope, '_>,
    ledger: &'scope Ledger,
    scheduler: &Scheduler<u64, u64>,
    seed: u64,
    producing: &AtomicUsize,
) {
    let mut replaced = 0;
    while producing.load(Ordering::Relaxed) > 0 {
        for stuck in scheduler.executing().iter().filter(|batch| batch.started.elapsed() > STUCK_AFTER) {
            if let Some(worker) = scheduler.replace(stuck) {
                replaced += 1;
                employ(scope, ledger, worker, seed ^ replaced << 20);
            }
        }
        thread::sleep(STUCK_AFTER / 6);
    }
}

fn execute(ledger: &Ledger, batch: &mut Batch<u64, u64>, dice: &mut Dice) {
    for &number in batch.payloads() {
        ledger.execute(number);
    }
    let mishap = dice.roll(2_000);
    if mishap == 2 {
        // Until it is given up, or until it nearly is.
        let enough = STUCK_AFTER + STUCK_AFTER * dice.roll(100) as u32 / 100;
        while batch.started().elapsed() < enough {
            thread::yield_now();
        }
    }
    for i in 0..batch.len() {
        let forgotten = mishap == 1 && i == 0;
        if !forgotten {
            batch.complete(i, !batch.payload(i));
        }
    }
    if mishap == 0 {
        std::panic::panic_any(Deliberate);
    }
}

struct Producer<'a> {
    ledger: &'a Ledger,
    scheduler: Scheduler<u64, u64>,
    groups: [GroupId; 3],
    dice: Dice,
    open: Vec<(Ticket<u64>, u64)>,
}

impl Producer<'_> {
    fn produce(&mut self, given_back: impl Iterator<Item = u64>, close_at: Option<u64>) {
        let ledger = self.ledger;
        for number in given_back.chain(std::iter::from_fn(|| ledger.next())) {
            let accepted = self.submit(number);
            if close_at == Some(number) {
                self.scheduler.close();
            }
            if !accepted {
                ledger.given_back.lock().expect("no holder panics").push(number);
                break;
            }
            if self.open.len() >= WINDOW {
                self.finish_some();
            } else if self.dice.roll(16) == 0 {
                self.withdraw();
            }
        }
        self.finish(0);
    }

    /// Submits until the request is accepted. False if the scheduler is closed.
    fn submit(&mut self, number: u64) -> bool {
        let group = self.groups[self.dice.roll(3) as usize];
        let mut request = Request::new(group, number)
            .priority(Priority::ALL[self.dice.roll(4) as usize])
            .rows(positive(1 + self.dice.roll(group.max_rows() as u64 / 4 + 1) as usize));
        if self.dice.roll(3) == 0 {
            request = request.deadline(Instant::now() + Duration::from_micros(self.dice.roll(500)));
        }
        loop {
            request = match self.scheduler.submit(request) {
                Ok(ticket) => {
                    let submitted = self.ledger.submitted.fetch_add(1, Ordering::Relaxed) + 1;
                    if submitted.is_multiple_of(REPORT_EVERY) {
                        eprintln!("{submitted} of {} submitted", self.ledger.requests);
                    }
                    self.open.push((ticket, number));
                    return true;
                }
                Err(refused) if refused.is_full() => {
                    self.ledger.count(End::Full);
                    self.finish_some();
                    refused.into_request()
                }
                Err(refused) if refused.is_closed() => {
                    self.ledger.count(End::Closed);
                    return false;
                }
                Err(_) => {
                    self.ledger.count(End::NoTime);
                    Request::new(group, number)
                }
            };
        }
    }

    /// Waits for some of the open requests, as the dice fall; if none is open, gives the workers a turn.
    fn finish_some(&mut self) {
        if self.open.is_empty() {
            thread::yield_now();
        } else {
            let keep = self.dice.roll(self.open.len() as u64) as usize;
            self.finish(keep);
        }
    }

    /// Waits for all open requests but the first `keep`.
    fn finish(&mut self, keep: usize) {
        for (ticket, number) in self.open.drain(keep..) {
            match ticket.wait_timeout(LOST_AFTER) {
                Ok(outcome) => self.ledger.end(number, end(number, outcome.result)),
                Err(_) => self.ledger.count(End::Lost),
            }
        }
    }

    /// Withdraws the request that was submitted last, if no batch has taken it yet.
    fn withdraw(&mut self) {
        let Some((ticket, number)) = self.open.pop() else { return };
        if let Err(ticket) = ticket.withdraw() {
            return self.open.push((ticket, number));
        }
        self.ledger.end(number, End::Withdrawn);
        if self.ledger.executed.contains(number) {
            self.ledger.count(End::Doubled);
        }
    }
}

fn end(number: u64, result: Result<u64, Failure>) -> End {
    match result {
        Ok(value) => {
            assert_eq!(value, !number, "the answer of another request");
            End::Answered
        }
        Err(Failure::DeadlineExceeded) => End::Dropped,
        Err(Failure::WorkerPanicked) => End::Panicked,
        Err(Failure::Unanswered) => End::Unanswered,
        Err(Failure::Abandoned) => End::Abandoned,
        Err(other) => panic!("request {number}: {other}, while workers live"),
    }
}

fn summary(ledger: &Ledger, took: Duration) -> String {
    let lines: String = End::ALL.iter().map(|&end| format!("{end:<12?}{:>12}\n", ledger.counted(end))).collect();
    let submitted = ledger.submitted.load(Ordering::Relaxed);
    let outcomes = ledger.ended.count();
    format!(
        "{lines}{submitted} requests in {:.0} s, {:.0} a second\n\
         {{\"submitted\": {submitted}, \"outcomes\": {outcomes}, \"lost\": {}, \"doubled\": {}}}\n",
        took.as_secs_f64(),
        submitted as f64 / took.as_secs_f64(),
        submitted - outcomes,
        ledger.counted(End::Doubled),
    )
}

/// # Errors
/// When the books do not balance.
fn judge(ledger: &Ledger) -> Result<(), Box<dyn Error>> {
    let submitted = ledger.submitted.load(Ordering::Relaxed);
    let computed: u64 =
        [End::Answered, End::Panicked, End::Unanswered, End::Abandoned].map(|end| ledger.counted(end)).iter().sum();
    let balanced = submitted == ledger.requests
        && ledger.ended.count() == submitted
        && computed + ledger.counted(End::Withdrawn) + ledger.counted(End::Dropped) == submitted
        && ledger.executed.count() == computed
        && ledger.counted(End::Doubled) == 0;
    if balanced { Ok(()) } else { Err("submitted, executed and outcomes do not balance".into()) }
}

fn positive(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("positive")
}
