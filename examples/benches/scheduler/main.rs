//! The scheduler by itself, against what a Rust user would take instead, in one run.
//!
//! ```sh
//! just bench scheduler                        # about two minutes
//! just bench scheduler --rounds 3 --seconds 0.5
//! just bench scheduler --report               # writes the report under docs/benchmarks as well
//! just bench scheduler --gate                 # counts instructions only; fails if a submit costs too many
//! ```
//!
//! Throughput: every contestant gets the same producers, each with the same window of requests under way, each request
//! polled as a future, largest batches of one size and an executor that does nothing. The contestants take turns within
//! a round, so that a drift of the machine's speed meets all of them; a ratio is taken within its round.

mod instructions;
mod rivals;
mod submit;
mod waits;
mod window;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::time::Duration;

use serde_json::{Value, json};
use volley_examples::Spread;

use crate::instructions::Operation;
use crate::rivals::{BatchedFn, MutexHeap, TokioMpsc, TokioWaiting, Volley};
use crate::window::{WINDOW, requests_per_second};

/// More producers than cores, as a server has: the headline. Beside it one producer and one worker, a core each, which
/// shows what the queues themselves cost.
const CROWD: usize = 16;
/// What a submit may cost, in floors.
const GATE: f64 = 2.0;
/// The numbers that cross the bare queue in a round.
const BARE: u64 = 2_000_000;

struct Options {
    seconds: f64,
    rounds: usize,
    /// Whether to count instructions only, and to fail if there are too many.
    gate: bool,
}

/// Requests per second of each contestant, round by round.
#[derive(Default)]
struct Throughput {
    bare: Spread,
    volley: Spread,
    tokio: Spread,
    waiting: Spread,
    batched: Spread,
    heap: Spread,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(options) = options()? else { return Ok(()) };
    let mut report = String::new();
    let costs = instructions::costs()?;
    let over_floor = costs.submit / costs.floor;
    for (name, cost) in
        [("submit", costs.submit), ("... with a deadline", costs.deadline), ("... of a tenant", costs.tenant)]
    {
        let (floor, unit) = (costs.floor, costs.unit);
        writeln!(report, "{name:<20} {cost:.0} {unit}, floor {floor:.0} {unit}: {:.2} times", cost / floor)?;
    }
    if options.gate {
        write!(stdout(), "{report}")?;
        return match over_floor {
            _ if costs.unit != "instructions" => Ok(writeln!(stdout(), "skipped: valgrind is not installed")?),
            ..=GATE => Ok(()),
            _ => Err(format!("a submit costs {over_floor:.2} times its floor, more than {GATE}").into()),
        };
    }

    let alone = throughput(&options, 1);
    describe(&mut report, &options, 1, &alone)?;
    let crowd = throughput(&options, CROWD);
    describe(&mut report, &options, CROWD, &crowd)?;

    let duration = Duration::from_secs_f64(options.seconds);
    let rounds: Vec<_> = (0..options.rounds).map(|_| submit::round(duration)).collect();
    let over = |figure: fn(&submit::Round) -> f64| rounds.iter().map(figure).collect::<Spread>();
    let (awake, waking) = (over(|round| round.awake), over(|round| round.waking));
    let unpark = over(|round| round.unpark);
    writeln!(report, "\np99 of one submit, 16 producers, us")?;
    writeln!(report, "  200,000/s, bare queue        {:.2}", over(|round| round.floor))?;
    writeln!(report, "  200,000/s, leader awake      {awake:.2}")?;
    writeln!(report, "  200,000/s, as it comes       {:.2}", over(|round| round.mixed))?;
    writeln!(
        report,
        "  2,000/s, leader asleep       {waking:.2} ({:.2} batches a request)",
        over(|round| round.wakes)
    )?;
    writeln!(report, "  2,000/s, bare unpark         {unpark:.2}, a submit {:.2} times", waking.over(&unpark))?;

    let parked: Spread = (0..options.rounds).map(|_| waits::parked_round_trip()).collect();
    let notice: Spread = (0..options.rounds).map(|_| waits::drop_notice_p99()).collect();
    let turnaround: Spread = (0..options.rounds).map(|_| waits::turnaround()).collect();
    writeln!(report, "\nround trip of one parked caller  {parked:.1} us")?;
    writeln!(report, "deadline to notice, p99          {notice:.2} ms, while the only worker executes")?;
    writeln!(report, "from one full batch to the next  {turnaround:.2} us, while more waits")?;

    let figures = json!({
        "submit_over_floor": rounded(over_floor, 3),
        "submit_p99_us": rounded(awake.median(), 2),
        "submit_waking_p99_us": rounded(waking.median(), 2),
        "bare_unpark_p99_us": rounded(unpark.median(), 2),
        "parked_round_trip_us": rounded(parked.median(), 1),
        "requests_per_second": rounded(crowd.volley.median(), 0),
        "over_tokio_mpsc": rounded(crowd.volley.over(&crowd.tokio).median(), 2),
        "over_waiting_tokio_mpsc": rounded(crowd.volley.over(&crowd.waiting).median(), 2),
        "over_batched_fn": rounded(crowd.volley.over(&crowd.batched).median(), 2),
        "over_mutex_heap": rounded(crowd.volley.over(&crowd.heap).median(), 2),
        "lone_requests_per_second": rounded(alone.volley.median(), 0),
        "lone_over_tokio_mpsc": rounded(alone.volley.over(&alone.tokio).median(), 2),
        "lone_over_waiting_tokio_mpsc": rounded(alone.volley.over(&alone.waiting).median(), 2),
        "lone_over_batched_fn": rounded(alone.volley.over(&alone.batched).median(), 2),
        "lone_over_mutex_heap": rounded(alone.volley.over(&alone.heap).median(), 2),
        "drop_notice_p99_ms": rounded(notice.median(), 2),
        "turnaround_us": rounded(turnaround.median(), 2),
    });
    writeln!(stdout(), "{report}\n{figures}")?;
    Ok(())
}

/// None if this process only counts operations for another.
fn options() -> Result<Option<Options>, Box<dyn Error>> {
    const USAGE: &str = "usage: scheduler [--seconds N] [--rounds N] [--gate]";
    let mut options = Options { seconds: 1.0, rounds: 7, gate: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            // Cargo says so to whatever it benches.
            "--bench" => {}
            "--gate" => options.gate = true,
            "--count" => {
                let operation = Operation::named(&value()?).ok_or(USAGE)?;
                operation.run(value()?.parse()?);
                return Ok(None);
            }
            "--seconds" => options.seconds = value()?.parse()?,
            "--rounds" => options.rounds = value()?.parse()?,
            _ => return Err(USAGE.into()),
        }
    }
    Ok(Some(options))
}

fn throughput(options: &Options, producers: usize) -> Throughput {
    let duration = Duration::from_secs_f64(options.seconds);
    let capacity = producers * WINDOW;
    let mut found = Throughput::default();
    for round in 1..=options.rounds {
        eprintln!("throughput of {producers}: round {round} of {}", options.rounds);
        found.bare.push(rivals::bare_queue(capacity, BARE));
        found.volley.push(requests_per_second(&Volley::start(capacity), producers, duration));
        found.tokio.push(requests_per_second(&TokioMpsc::start(capacity), producers, duration));
        found.waiting.push(requests_per_second(&TokioWaiting::start(capacity), producers, duration));
        found.batched.push(requests_per_second(&BatchedFn, producers, duration));
        found.heap.push(requests_per_second(&MutexHeap::start(), producers, duration));
    }
    found
}

fn describe(
    report: &mut String,
    options: &Options,
    producers: usize,
    found: &Throughput,
) -> Result<(), std::fmt::Error> {
    let Throughput { bare, volley, tokio, waiting, batched, heap } = found;
    writeln!(report, "\nrequests/s, {producers} producer(s) with {WINDOW} requests under way each, one worker")?;
    writeln!(report, "median [least .. greatest] of {} rounds of {} s", options.rounds, options.seconds)?;
    writeln!(report, "  bare queue, no answers           {bare:.0}")?;
    writeln!(report, "  volley-scheduler                 {volley:.0}")?;
    let rivals = [
        ("tokio mpsc, takes what is there", tokio),
        ("tokio mpsc, waits for more", waiting),
        ("batched-fn", batched),
        ("mutex and heap", heap),
    ];
    for (name, rival) in rivals {
        writeln!(report, "  {name:<32} {rival:.0}, volley {:.2} times", volley.over(rival))?;
    }
    Ok(())
}

fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10_f64.powi(digits);
    json!((value * scale).round() / scale)
}
