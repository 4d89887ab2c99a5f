//! Volley beside its peers: the same model file, the same ONNX Runtime, one core, the same load.
//!
//! ```sh
//! just bench peers                                    # about ten minutes, and as much again to install them
//! just bench peers --seconds 2 --rounds 1 --only mosec
//! ```
//!
//! A round starts Volley on core 0, loads it from core 1 and ends it, then does the same with the peer, so that a ratio is
//! made of figures of the same minute. Throughput is the better one of 32 and 64 connections in a closed loop, batches of
//! at most 32 that wait 2 ms at most; the latency is that of 500 requests a second with the least wait a peer can be told.
//! Before any load, what a server says is held against ONNX Runtime. Memory is the proportional share (`Pss`) of all
//! processes of a server.

mod contest;
mod peer;
mod running;

use std::error::Error;
use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use volley_examples::{Arguments, pin_this_process, rounded};

use contest::{Contest, Figures};
use peer::Peer;

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

struct Options {
    seconds: f64,
    rounds: usize,
    only: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    pin_this_process(LOAD_CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let contests = [
        (Peer::Mosec, "fp32", "model.onnx"),
        (Peer::Triton, "fp32", "model.onnx"),
        (Peer::Ray, "fp32", "model.onnx"),
        (Peer::RayDefault, "fp32", "model.onnx"),
        (Peer::Mosec, "int8", "model.int8.onnx"),
    ];
    let mut out = stdout();
    let mut figures = Map::new();
    for (peer, variant, file) in contests {
        let name = peer.name();
        if !["all", name].contains(&options.only.as_str()) {
            continue;
        }
        let contest = Contest::new(peer, variant, &model(file), options.seconds)?;
        let (mut volley, mut other) = (Figures::default(), Figures::default());
        for round in 1..=options.rounds {
            eprintln!("{name}, {variant}: round {round} of {}", options.rounds);
            runtime.block_on(contest.round(&mut volley, &mut other))?;
        }
        let ratio = volley.best_rate.over(&other.best_rate);
        writeln!(out, "{variant}: {}", peer.description())?;
        describe(&mut out, "volley", &volley)?;
        describe(&mut out, name, &other)?;
        writeln!(out, "  volley over {name:<14} {ratio:.2}\n")?;
        let mut enter = |side: &str, figures_of: &Figures| {
            let Figures { best_rate, p99_ms, ready_ms, resident_mb, .. } = figures_of;
            for (what, figure, digits) in [
                ("requests_per_second", best_rate, 0),
                ("p99_at_500_ms", p99_ms, 2),
                ("ready_ms", ready_ms, 0),
                ("rss_mb", resident_mb, 1),
            ] {
                figures.insert(format!("{side}_{what}"), rounded(figure.median(), digits));
            }
        };
        enter(&format!("{name}_{variant}"), &other);
        enter(&format!("volley_{variant}_beside_{name}"), &volley);
        figures.insert(format!("over_{name}_{variant}"), rounded(ratio.median(), 3));
    }
    writeln!(out, "{}", Value::Object(figures))?;
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let options = Options {
        seconds: arguments.take("--seconds", 3.0, "of each measurement"),
        rounds: arguments.take("--rounds", 2, "how often each side is measured"),
        only: arguments.take("--only", "all".to_owned(), "the peer: mosec, triton, ray or ray_default"),
    };
    arguments.finish()?;
    Ok(options)
}

fn describe(out: &mut impl std::io::Write, name: &str, figures: &Figures) -> std::io::Result<()> {
    let Figures { rates, best_rate: _, p50_ms, p99_ms, slip_p99_ms, ready_ms, resident_mb, notes } = figures;
    let [few, many] = rates;
    writeln!(out, "  {name}")?;
    writeln!(out, "    requests/s              {few:.0} over 32 connections, {many:.0} over 64")?;
    writeln!(
        out,
        "    at 500 requests/s       p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms; generator {slip_p99_ms:.2} ms late at p99"
    )?;
    writeln!(out, "    from start to an answer {ready_ms:.0} ms")?;
    writeln!(out, "    resident                {resident_mb:.1} MB after the load")?;
    for note in notes {
        writeln!(out, "    note                    {note}")?;
    }
    Ok(())
}

fn model(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/repository/cnn_lstm/1").join(file)
}
