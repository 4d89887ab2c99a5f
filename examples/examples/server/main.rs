//! The server against what is below it: raw ONNX Runtime on the same core, in the same run, with the same file.
//!
//! ```sh
//! just bench server                     # about four minutes
//! just bench server --seconds 2 --rounds 2
//! ```
//!
//! For each variant of the bundled model it starts `volley-server` on core 0, and in each round runs raw ONNX Runtime on
//! core 0 (the server idles meanwhile), then loads the server over HTTP from core 1, then raw again. A round's ratio is
//! the server's requests/s over the mean of the two raw figures around it, so that a drift of the machine's speed cancels.
//! Over gRPC it is held against what raw ONNX Runtime and a bare gRPC server (`grpc_echo`, messages of the same sizes) would
//! allow together on one core: 1 / (1 / raw + 1 / echo).
//! Then it is asked at half of that rate, and 500 times a second, by callers that do not wait for each other.

mod calls;
mod rounds;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use serde_json::{Map, Value};
use volley_examples::{Arguments, ServerProcess, Spread, pin_this_process, rounded};
use volley_gpu_runtime::Library;
use volley_validate::usage::ProcessUsage;

use rounds::{Figures, Rounds};

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
const STARTS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = options()?;
    pin_this_process(LOAD_CORE)?;
    let library = Library::load(None)?.path().to_path_buf();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    let mut report = String::new();
    let mut last_line = Map::new();
    for (variant, file) in [("fp32", "model.onnx"), ("int8", "model.int8.onnx")] {
        let figures = runtime.block_on(rounds.measure(&library, variant, file))?;
        describe(&mut report, variant, &figures)?;
        let mut enter = |key: &str, value: f64, digits| last_line.insert(key.to_owned(), rounded(value, digits));
        enter(&format!("http_{variant}_over_raw"), figures.ratio.median(), 3);
        enter(&format!("grpc_{variant}_over_bound"), figures.grpc_ratio.median(), 3);
        if variant == "fp32" {
            enter("server_core_busy", figures.server_busy.median(), 2);
            enter("p99_at_half_ms", figures.half.p99_ms.median(), 2);
            enter("p99_at_half_allowed_ms", figures.allowed_at_half_ms(), 2);
            enter("p99_at_500_ms", figures.steady.p99_ms.median(), 2);
        } else {
            enter("p99_at_half_int8_ms", figures.half.p99_ms.median(), 2);
            enter("p99_at_half_int8_allowed_ms", figures.allowed_at_half_ms(), 2);
        }
    }
    let (ready, rss) = starts()?;
    writeln!(report, "ready after                 {ready:.0} ms from process start, {STARTS} starts")?;
    writeln!(report, "resident at rest            {rss:.1} MB, {STARTS} starts")?;
    last_line.insert("ready_ms".into(), rounded(ready.median(), 0));
    last_line.insert("rss_mb".into(), rounded(rss.median(), 1));
    writeln!(stdout(), "{report}\n{}", Value::Object(last_line))?;
    Ok(())
}

fn options() -> Result<Rounds, Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let rounds = Rounds {
        seconds: arguments.take("--seconds", 5.0, "of each measurement"),
        count: arguments.take("--rounds", 4, "how often each side is measured"),
        connections: arguments.take("--connections", 64, "of the closed loop over HTTP"),
    };
    arguments.finish()?;
    Ok(rounds)
}

fn describe(report: &mut String, variant: &str, figures: &Figures) -> Result<(), std::fmt::Error> {
    let Figures { best_batch, raw, http, ratio, grpc, echo, grpc_ratio, grpc_us, server_us, server_busy, .. } = figures;
    writeln!(report, "{variant}: median [least .. greatest] of {} rounds", ratio.values().len())?;
    writeln!(report, "  raw ONNX Runtime          {raw:.0} samples/s at its best batch, {best_batch}")?;
    writeln!(report, "  over HTTP                 {http:.0} requests/s")?;
    writeln!(report, "  ratio                     {ratio:.3}")?;
    writeln!(report, "  server's core             {server_busy:.2} busy, {server_us:.0} us CPU a request")?;
    writeln!(report, "  over gRPC                 {grpc:.0} calls/s, {grpc_us:.0} us CPU a call")?;
    writeln!(report, "  a bare gRPC server        {echo:.0} calls/s")?;
    writeln!(report, "  ratio                     {grpc_ratio:.3} of what raw and a bare server allow together")?;
    let raw_us: Spread = raw.values().iter().map(|rate| 1e6 / rate).collect();
    writeln!(report, "  raw                       {raw_us:.0} us a sample")?;
    writeln!(report, "  a batch of one, raw       {:.2} ms", figures.one_ms)?;
    for (load, open) in [("half of that, Poisson", &figures.half), ("500 requests/s", &figures.steady)] {
        let rounds::Open { rate, failed, p50_ms, p99_ms, max_ms, slip_p99_ms, slip_max_ms } = open;
        writeln!(
            report,
            "  {load:<25} {rate:.0} requests/s, {failed} failed: p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, longest {max_ms:.2} ms; generator {slip_p99_ms:.3} ms late at p99, {slip_max_ms:.1} ms at most"
        )?;
    }
    writeln!(
        report,
        "  p99 allowed at half       {:.2} ms: four batches of one and 2 ms\n",
        figures.allowed_at_half_ms()
    )
}

/// Starts the server as a user would, with nothing set, and looks at it before any request.
fn starts() -> Result<(Spread, Spread), Box<dyn Error>> {
    let (mut ready, mut rss) = (Spread::default(), Spread::default());
    for _ in 0..STARTS {
        let server = ServerProcess::start(None, &[])?;
        ready.push(server.ready_after.as_secs_f64() * 1e3);
        rss.push(ProcessUsage::of(server.pid())?.resident_bytes as f64 / 1e6);
    }
    Ok((ready, rss))
}
