//! What a server makes of clients that mean it harm: requests that are wrong in every way, and connections that do nothing.
//!
//! ```sh
//! just bench hostile                                        # about four minutes
//! just bench hostile --first 4711 --requests 1 --rounds 0   # one request again, alone
//! ```
//!
//! Half of the requests are structured: good ones (V2 in JSON and in raw bytes, V1, compressed bodies, questions, what
//! operators say, gRPC) with a member replaced, doubled or left out, or with something wrong about their head, their length
//! or their frames. Half are blind: bytes of such requests altered, cut and doubled, noise, and what belongs to another
//! protocol. Some clients leave early, some close one half, some send several requests at once. What was complete must be
//! answered or its connection closed, and once nothing more can come the connection must be closed, within seconds. In
//! between, good requests on fresh and on kept connections must be answered as they were at first, to the bit.
//!
//! Then a process of its own holds thousands of slow connections, and the latency of others is measured with and without
//! it, in turns. The server is on core 0, everything else on core 1.

mod attack;
mod blind;
mod bystanders;
mod call;
mod client;
mod dice;
mod frames;
mod fuzz;
mod good;
mod members;
mod probe;
mod protobuf;
mod request;
mod slow;
mod visit;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use serde_json::{Map, Value, json};
use volley_examples::{Arguments, pin_this_process, rounded};

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

fn main() -> Result<(), Box<dyn Error>> {
    // This program is also the child that it starts.
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("slow") {
        return slow::attack(arguments);
    }
    let (requests, slowness) = plans()?;
    pin_this_process(LOAD_CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = String::new();
    let mut figures = Map::new();

    if requests.requests > 0 {
        let fuzzed = runtime.block_on(fuzz::run(requests))?;
        writeln!(report, "{fuzzed}")?;
        figures.insert("hostile_requests".into(), json!(fuzzed.requests));
        figures.insert("hostile_5xx".into(), json!(fuzzed.five_hundreds));
        figures.insert("hostile_hangs".into(), json!(fuzzed.hangs));
        figures.insert("hostile_wrong".into(), json!(fuzzed.wrong));
        figures.insert("hostile_rss_growth".into(), rounded(fuzzed.growth(), 4));
    }
    if slowness.rounds > 0 {
        if let Some(reason) = bystanders::hindrance(slowness.connections)? {
            writeln!(report, "slow connections skipped: {reason}\n")?;
        } else {
            let bystanders = runtime.block_on(bystanders::run(&slowness))?;
            writeln!(report, "{bystanders}")?;
            figures.insert("slow_connections".into(), rounded(bystanders.least_held(), 0));
            figures.insert("slow_p99_change_ms".into(), rounded(bystanders.p99_change_ms(), 2));
            figures.insert("slow_bytes_per_connection".into(), rounded(bystanders.bytes_per_connection(), 0));
            figures.insert("slow_failures".into(), json!(bystanders.failures()));
        }
    }
    writeln!(stdout(), "{report}\n{}", Value::Object(figures))?;
    Ok(())
}

fn plans() -> Result<(fuzz::Plan, bystanders::Plan), Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let requests = fuzz::Plan {
        requests: arguments.take("--requests", 100_000, "hostile requests; 0 leaves them out"),
        seed: arguments.take("--seed", 1, "the same seed makes the same requests"),
        first: arguments.take("--first", 0, "the number of the first: each can be made again alone"),
    };
    let slowness = bystanders::Plan {
        connections: arguments.take("--connections", 8000, "slow connections"),
        rounds: arguments.take("--rounds", 4, "how often others are measured with and without them; 0 leaves them out"),
        seconds: arguments.take("--seconds", 5.0, "of each of these measurements"),
    };
    arguments.finish()?;
    Ok((requests, slowness))
}
