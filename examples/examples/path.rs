//! The whole path over HTTP against raw ONNX Runtime: same machine, same run, same file, one core each.
//!
//! ```sh
//! just bench path                     # about two minutes
//! just bench path --seconds 4 --rounds 3
//! ```
//!
//! For each variant of the bundled model it starts `volley-server` on core 0, and in each round runs raw ONNX Runtime on
//! core 0 (the server idles meanwhile), then loads the server over HTTP from core 1, then raw again. A round's ratio is
//! the server's requests/s over the mean of the two raw figures around it, so that a drift of the machine's speed cancels.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};
use volley_examples::{ServerProcess, Spread, pin_this_process, raw_samples_per_second};
use volley_gpu_runtime::Library;
use volley_validate::load::{self, ClosedLoop, Load, Measurement};
use volley_validate::protocol::RequestOptions;
use volley_validate::subject::Subject;
use volley_validate::target::Target;
use volley_validate::usage::ProcessUsage;

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
const BATCHES: [usize; 6] = [2, 4, 8, 16, 32, 64];
const STARTS: usize = 5;

struct Options {
    seconds: f64,
    rounds: usize,
    connections: NonZeroUsize,
}

/// What the rounds of one variant gave.
#[derive(Default)]
struct Figures {
    best_batch: usize,
    raw: Spread,
    http: Spread,
    ratio: Spread,
    server_us: Spread,
    server_busy: Spread,
    load_us: Spread,
    load_busy: Spread,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    pin_this_process(LOAD_CORE)?;
    let library = Library::load(None)?.path().to_path_buf();
    let version = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/repository/cnn_lstm/1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    let mut report = String::new();
    let mut figures = Map::new();
    for (variant, file) in [("fp32", "model.onnx"), ("int8", "model.int8.onnx")] {
        eprintln!("{variant}: {} rounds of {} s ...", options.rounds, options.seconds * 3.0);
        let measured = runtime.block_on(rounds(&options, &library, variant, &version.join(file)))?;
        describe(&mut report, variant, &measured)?;
        figures.insert(format!("http_{variant}_over_raw"), rounded(measured.ratio.median(), 3));
    }
    let (ready, rss) = starts()?;
    writeln!(report, "ready after                 {ready:.0} ms from process start, {STARTS} starts")?;
    writeln!(report, "resident at rest            {rss:.1} MB, {STARTS} starts")?;
    figures.insert("ready_ms".into(), rounded(ready.median(), 0));
    figures.insert("rss_mb".into(), rounded(rss.median(), 1));
    writeln!(stdout(), "{report}\n{}", Value::Object(figures))?;
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options { seconds: 5.0, rounds: 4, connections: NonZeroUsize::new(64).ok_or("not zero")? };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--seconds" => options.seconds = value()?.parse()?,
            "--rounds" => options.rounds = value()?.parse()?,
            "--connections" => options.connections = value()?.parse()?,
            _ => return Err("usage: path [--seconds N] [--rounds N] [--connections N]".into()),
        }
    }
    Ok(options)
}

async fn rounds(options: &Options, library: &Path, variant: &str, model: &Path) -> Result<Figures, Box<dyn Error>> {
    let variants = format!("[\"{variant}\"]");
    let settings = [("VOLLEY_MODELS__CNN_LSTM__VARIANTS", variants.as_str()), ("VOLLEY_CACHE__ENABLED", "false")];
    let server = ServerProcess::start(Some(SERVER_CORE), &settings)?;
    let target = Target::new(&format!("http://{}", server.http), "cnn_lstm")?;
    let subject = Subject::reach(target, &RequestOptions::default()).await?.with_process(server.pid())?;

    let raw = |seconds, batches: &[usize]| raw_samples_per_second(SERVER_CORE, library, model, seconds, batches);
    let scan = raw(options.seconds / 4.0, &BATCHES)?;
    let best = scan.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(index, _)| index);
    let mut figures = Figures { best_batch: BATCHES[best], ..Default::default() };
    for _ in 0..options.rounds {
        let before = raw(options.seconds / 2.0, &[figures.best_batch])?[0];
        let http = saturate(&subject, options).await?;
        let after = raw(options.seconds / 2.0, &[figures.best_batch])?[0];
        let raw_rate = f64::midpoint(before, after);
        figures.raw.push(raw_rate);
        figures.http.push(http.requests_per_second());
        figures.ratio.push(http.requests_per_second() / raw_rate);
        let usage = http.server.ok_or("the server's process could not be read")?;
        let micros = |time: Option<Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e6);
        figures.server_us.push(micros(usage.cpu_per_request));
        figures.server_busy.push(usage.busy_cores * 100.0);
        figures.load_us.push(micros(http.generator.cpu_per_request));
        figures.load_busy.push(http.generator.busy_cores * 100.0);
    }
    Ok(figures)
}

async fn saturate(subject: &Subject, options: &Options) -> Result<Measurement, Box<dyn Error>> {
    let plan = Load::Closed(ClosedLoop {
        connections: options.connections,
        warmup: Duration::from_millis(500),
        duration: Duration::from_secs_f64(options.seconds),
    });
    let measured = load::run(subject, &plan, |_| {}).await?;
    if measured.error_rate() != Some(0.0) {
        return Err(format!("some requests failed: {:?}", measured.failures).into());
    }
    Ok(measured)
}

fn describe(report: &mut String, variant: &str, figures: &Figures) -> Result<(), std::fmt::Error> {
    let Figures { best_batch, raw, http, ratio, server_us, server_busy, load_us, load_busy } = figures;
    writeln!(report, "{variant}: median [least .. greatest] of {} rounds", ratio.values().len())?;
    writeln!(report, "  raw ONNX Runtime          {raw:.0} samples/s at its best batch, {best_batch}")?;
    writeln!(report, "  over HTTP                 {http:.0} requests/s")?;
    writeln!(report, "  ratio                     {ratio:.3}")?;
    writeln!(report, "  server's core             {server_busy:.0} % busy, {server_us:.0} us CPU a request")?;
    let raw_us: Spread = raw.values().iter().map(|rate| 1e6 / rate).collect();
    writeln!(report, "  raw                       {raw_us:.0} us a sample")?;
    writeln!(report, "  load generator's core     {load_busy:.0} % busy, {load_us:.0} us CPU a request\n")
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

fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10_f64.powi(digits);
    json!((value * scale).round() / scale)
}
