//! What becomes of requests while all around them changes: models are loaded anew, loaded and unloaded, the server is told
//! to leave, and its configuration changes.
//!
//! ```sh
//! just bench churn                                    # about ten minutes
//! just bench churn --seconds 10 --rounds 20
//! ```
//!
//! `--seconds` is how long models are reloaded under load, `--rounds` how often the server is told to leave; there are ten
//! times as many cycles of loading and unloading, and changes of the configuration. The server is on core 0, everything else on core 1.

mod cycles;
mod departures;
mod reloads;
mod updates;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use serde_json::{Map, Value, json};
use volley_examples::{Arguments, pin_this_process, rounded};

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

struct Options {
    seconds: f64,
    rounds: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    pin_this_process(LOAD_CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = String::new();
    let mut figures = Map::new();

    let reloads = runtime.block_on(reloads::run(options.seconds))?;
    writeln!(report, "{reloads}")?;
    figures.insert("reload_failures".into(), json!(reloads.failures()));
    figures.insert("reload_p99_ms".into(), rounded(reloads.p99_ms(), 2));
    figures.insert("reload_p99_allowed_ms".into(), rounded(reloads.p99_allowed_ms(), 2));

    let cycles = cycles::run(options.rounds * 10)?;
    writeln!(report, "{cycles}")?;
    figures.insert("load_unload_rss_growth".into(), rounded(cycles.growth(), 4));

    let departures = runtime.block_on(departures::run(options.rounds))?;
    writeln!(report, "{departures}")?;
    figures.insert("sigterm_lost".into(), json!(departures.lost));

    let updates = runtime.block_on(updates::run(options.rounds * 10))?;
    writeln!(report, "{updates}")?;
    figures.insert("config_failures".into(), json!(updates.failures()));

    writeln!(stdout(), "{report}\n{}", Value::Object(figures))?;
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let options = Options {
        seconds: arguments.take("--seconds", 60.0, "how long models are reloaded under load, and how long without"),
        rounds: arguments.take(
            "--rounds",
            100,
            "how often the server is told to leave; all else happens ten times as often",
        ),
    };
    arguments.finish()?;
    Ok(options)
}
