//! What the cache costs and what it holds, alone and behind HTTP.
//!
//! ```sh
//! just bench cache                       # some minutes; most of them fill memory
//! just bench cache --inserts 1000000 --rounds 3
//! ```
//!
//! The last line has `local_hit_ns` (median, hashing apart), `hash_gb_s` (median, a key over 12,000 bytes),
//! `hit_over_echo` (cache hits a second over HTTP against a bare echo of the same sizes, the server's core saturated,
//! in turns), `hit_over_echo_cpu` (the same by the processor's time a request, which other load on the machine moves
//! less), `bytes_over_bound` (the worst excess of resident growth over the byte bound, as a fraction) and
//! `warm_hit_rate_share` (the hit rate of the first 10 seconds after a restart with a snapshot, at 2,000 look-ups a second,
//! over that before), with `warm_first_share` (that of the first 500 look-ups).

mod echo;
mod local;
mod memory;
mod over_http;
mod warm;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use serde_json::{Value, json};
use volley_examples::Arguments;

pub(crate) struct Options {
    /// Distinct inserts of each case of small values.
    pub inserts: u64,
    /// Rounds of the comparison over HTTP.
    pub rounds: usize,
    /// Seconds of each side in a round.
    pub seconds: f64,
    pub connections: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        // This program is also the children that it starts.
        Some("echo") => return echo::serve(arguments.next().ok_or("echo needs the length of a reply")?.parse()?),
        Some("fill") => return memory::fill(arguments),
        _ => {}
    }
    let options = options()?;
    let mut report = String::new();
    let hash = local::hash_gb_s();
    writeln!(report, "key over 12,000 bytes       {hash:.1} GB/s")?;
    let hit = local::hit_ns();
    writeln!(report, "hit in memory               {hit:.0} ns, one of 100,000 keys in turn")?;
    let (warm_first, warm) = warm::hit_rate_shares(&mut report)?;
    let over_bound = memory::over_bound(&options, &mut report)?;
    let (by_rate, by_cpu) = over_http::hit_over_echo(&options, &mut report)?;
    let figures = json!({
        "local_hit_ns": rounded(hit, 0),
        "hash_gb_s": rounded(hash, 1),
        "hit_over_echo": rounded(by_rate, 3),
        "hit_over_echo_cpu": rounded(by_cpu, 3),
        "bytes_over_bound": rounded(over_bound, 3),
        "warm_first_share": rounded(warm_first, 3),
        "warm_hit_rate_share": rounded(warm, 3),
    });
    writeln!(stdout(), "{report}\n{figures}")?;
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let options = Options {
        inserts: arguments.take("--inserts", 10_000_000, "distinct inserts of each case of small values"),
        rounds: arguments.take("--rounds", 5, "how often each side is measured over HTTP"),
        seconds: arguments.take("--seconds", 3.0, "of each of these measurements"),
        connections: arguments.take("--connections", 32, "of the closed loop over HTTP"),
    };
    arguments.finish()?;
    Ok(options)
}

fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10_f64.powi(digits);
    json!((value * scale).round() / scale)
}
