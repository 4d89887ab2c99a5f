//! What becomes of requests when things break: each fault is made for real, in a real server under load, and each answer
//! is compared with what the model says when nothing is broken.
//!
//! ```sh
//! just bench faults
//! ```
//!
//! A model with an operator that fails, stalls or hangs on demand is served beside the bundled one, both under load. For each
//! fault the table has the requests that were lost (any answer but 200), the wrong answers, the longest that any request
//! took (what recovery cost), and the longest that a request for the *other* model took, beside what it takes without faults.

mod load;
mod panic;
mod site;

use std::error::Error;
use std::io::{Write as _, stdout};
use std::time::{Duration, Instant};

use serde_json::{Map, json};
use volley_examples::Arguments;

use load::{Load, Seen};
use site::{RUN_LIMIT, Site};

/// How long the load runs before and after a fault.
const CALM: Duration = Duration::from_millis(500);
/// Address space left to the server beyond what it has, in bytes, one after the other until a batch does not fit.
const HEADROOMS: [u64; 3] = [96 << 20, 64 << 20, 32 << 20];
/// How long the server may take to use memory that is there again.
const RELIEF: Duration = Duration::from_secs(30);
/// Between two looks at the row limit.
const LOOK: Duration = Duration::from_millis(50);

struct Row {
    name: &'static str,
    /// The model that the fault is about.
    here: Seen,
    /// The other.
    elsewhere: Seen,
    note: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    Arguments::of_this_process().finish()?;
    let mut rows = Vec::new();
    eprintln!("a server with two models, under load");
    let site = Site::open(&[])?;
    for (name, word) in
        [("none", "pass"), ("session_failure", "fail-once"), ("slow_run", "stall-once 400"), ("hang", "hang-once")]
    {
        eprintln!("fault: {name}");
        let load = Load::start(&site)?;
        std::thread::sleep(CALM);
        site.fault(word)?;
        // Longer than until a worker is given up.
        std::thread::sleep(CALM + 3 * RUN_LIMIT);
        let (here, elsewhere) = load.stop();
        let note = site.faults_seen()?;
        site.fault("pass")?;
        rows.push(Row { name, here, elsewhere, note });
    }
    for (name, spoil) in volley_examples::SPOILINGS {
        eprintln!("fault: {name}");
        let load = Load::start(&site)?;
        std::thread::sleep(CALM);
        let refusal = site.load_spoilt(spoil)?;
        std::thread::sleep(CALM);
        let (elsewhere, here) = load.stop();
        rows.push(Row { name, here, elsewhere, note: refusal });
    }
    drop(site);
    eprintln!("fault: out_of_memory");
    rows.push(out_of_memory()?);
    eprintln!("fault: worker_panic");
    let (here, panics) = panic::run()?;
    let note = format!("{panics} batches panicked");
    rows.push(Row { name: "worker_panic", here, elsewhere: Seen::default(), note });

    let mut out = stdout();
    writeln!(out, "run limit {} ms: interrupted then, given up half of that later", RUN_LIMIT.as_millis())?;
    writeln!(
        out,
        "{:<18} {:>9} {:>5} {:>6} {:>12} {:>15}  what was seen",
        "fault", "requests", "lost", "wrong", "longest, ms", "other model, ms"
    )?;
    let mut figures = Map::new();
    for Row { name, here, elsewhere, note } in &rows {
        let longest = |seen: &Seen| match seen.answered + seen.lost {
            0 => "-".to_owned(),
            _ => format!("{:.1}", seen.longest.as_secs_f64() * 1e3),
        };
        writeln!(
            out,
            "{name:<18} {:>9} {:>5} {:>6} {:>12} {:>15}  {note}",
            here.answered + elsewhere.answered,
            here.lost + elsewhere.lost,
            here.wrong + elsewhere.wrong,
            longest(here),
            longest(elsewhere),
        )?;
        if *name != "none" {
            figures.insert(format!("{name}_lost"), json!(here.lost + elsewhere.lost));
        }
    }
    let all = || rows.iter().flat_map(|row| [&row.here, &row.elsewhere]);
    let longest = |row: &Row| row.here.longest.as_secs_f64() * 1e3;
    figures.insert("wrong_answers".into(), json!(all().map(|seen| seen.wrong).sum::<usize>()));
    figures.insert("recovery_ms_max".into(), json!(round(rows[1..].iter().map(longest).fold(0.0, f64::max))));
    let other = |row: &Row| row.elsewhere.longest.as_secs_f64() * 1e3;
    figures.insert("other_model_ms_max".into(), json!(round(rows[1..4].iter().map(other).fold(0.0, f64::max))));
    figures.insert("other_model_ms_calm".into(), json!(round(other(&rows[0]))));
    for row in rows.iter().filter(|row| row.here.lost + row.elsewhere.lost > 0) {
        let first = row.here.first_loss.as_ref().or(row.elsewhere.first_loss.as_ref());
        writeln!(out, "lost under {}: {}", row.name, first.map_or("", String::as_str))?;
    }
    writeln!(out, "\n{}", serde_json::Value::Object(figures))?;
    Ok(())
}

/// Loads the bundled model anew under a limit of address space in which its largest batch cannot run; then lifts it.
fn out_of_memory() -> Result<Row, Box<dyn Error>> {
    let site = Site::open_for_large_batches()?;
    let before = site.row_limit()?;
    let load = Load::of_large_requests(&site)?;
    std::thread::sleep(CALM);
    let mut learned = before;
    // How much the server needs for a load but not for a batch is not known; so less is left to it each time.
    for headroom in HEADROOMS {
        site.limit_memory(headroom)?;
        site.load_again()?;
        learned = least(|| site.row_limit(), 4 * CALM)?;
        if learned < before {
            break;
        }
    }
    site.lift_memory_limit()?;
    let started = Instant::now();
    let mut after = site.row_limit()?;
    while after < before && started.elapsed() < RELIEF {
        std::thread::sleep(LOOK);
        after = site.row_limit()?;
    }
    let relief = started.elapsed().as_secs_f64();
    // Both kinds of callers asked the one model.
    let (here, elsewhere) = load.stop();
    let note = format!("row limit {before}, learned {learned}, {after} again {relief:.1} s after the pressure");
    if learned == before || after < before {
        return Err(format!("the limit was not learned and forgotten: {note}").into());
    }
    Ok(Row { name: "out_of_memory", here: here.join(elsewhere), elsewhere: Seen::default(), note })
}

/// The least that `look` sees in `time`.
fn least(look: impl Fn() -> Result<usize, Box<dyn Error>>, time: Duration) -> Result<usize, Box<dyn Error>> {
    let started = Instant::now();
    let mut least = look()?;
    while started.elapsed() < time {
        std::thread::sleep(LOOK);
        least = least.min(look()?);
    }
    Ok(least)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
