//! Is the bundled model right and fast on this machine's NVIDIA GPU? A ladder of steps, from the driver to 20,000
//! requests a second.
//!
//! ```sh
//! just gpu-check                      # some minutes; with --report it is kept under docs/benchmarks/
//! just gpu-check --on cpu             # the same steps on the processor, to try the program itself
//! ```
//!
//! Where there is no GPU, or an ONNX Runtime without CUDA, each step is named as skipped with the reason, and the program
//! succeeds. Where there is one, it fails if a step does. ONNX Runtime is looked for as the server looks for it: with the
//! wheel `onnxruntime-gpu` in the Python environment, its library is the one to name in `ORT_DYLIB_PATH`.
//!
//! Every measurement takes `--seconds` (1), a load on the server ten times as long. On the processor only the lowest rate
//! is tried.

mod candidate;
mod correctness;
mod golden;
mod ladder;
mod machine;
mod memory;
mod python;
mod speed;
mod utilisation;

use std::error::Error;
use std::io::{Write as _, stdout};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use volley_examples::Arguments;
use volley_gpu_runtime::{DeviceMonitor, Library, Provider, VersionFolder};

use ladder::{Ladder, Step, Verdict};

struct Options {
    /// What the steps run on.
    provider: Provider,
    seconds: f64,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let ladder = check(&options()?);
    writeln!(stdout(), "{ladder}\n{}", ladder.figures())?;
    Ok(if ladder.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn check(options: &Options) -> Ladder {
    let mut ladder = Ladder::default();
    let monitor = machine::device(&mut ladder);
    let library = machine::library(&mut ladder, options.provider);
    let on_gpu = options.provider != Provider::Cpu;
    ladder.figure("gpu", json!(u8::from(monitor.is_ok() && on_gpu)));
    match (&monitor, library) {
        (Err(_), _) if on_gpu => ladder.skip_the_rest("no GPU, as the first line says"),
        (_, Err(reason)) => ladder.skip_the_rest(&reason),
        (_, Ok(library)) => climb(&mut ladder, options, monitor.as_ref().ok().filter(|_| on_gpu), &library),
    }
    ladder
}

/// All steps that need a model to run.
fn climb(ladder: &mut Ladder, options: &Options, monitor: Option<&DeviceMonitor>, library: &Library) {
    let (provider, seconds) = (options.provider, options.seconds);
    let (version, golden) = match candidate::bundled().and_then(|version| Ok((golden::read(&version)?, version))) {
        Ok((golden, version)) => (version, golden),
        Err(error) => {
            ladder.add(Step::Placement, "", Verdict::Failed(error.to_string()));
            return ladder.skip_the_rest("there is no model to run");
        }
    };
    // How far answers are off is a step of its own, which says it in figures instead of refusing to load.
    let version = VersionFolder { golden: None, ..version };
    let candidates = candidate::place(ladder, library, provider, &version);
    correctness::check(ladder, &candidates, &golden);
    let paces = speed::measure(ladder, &candidates, &golden, seconds);
    python::compare(ladder, provider, library, &candidates, &paces, seconds);
    let fastest = speed::fastest(&paces).map(|pace| pace.variant);
    utilisation::load(ladder, provider, monitor, fastest, seconds * 10.0);
    memory::squeeze(ladder, library, provider, &version, &candidates, &golden);
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let on = arguments.take("--on", "cuda".to_owned(), "what the steps run on: cuda or cpu");
    let seconds = arguments.take("--seconds", 1.0, "of each measurement; a load on the server lasts ten times as long");
    arguments.finish()?;
    let provider = match on.as_str() {
        "cuda" => Provider::Cuda,
        "cpu" => Provider::Cpu,
        _ => return Err(format!("--on: {on:?}; expected cuda or cpu").into()),
    };
    Ok(Options { provider, seconds: Duration::try_from_secs_f64(seconds)?.as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_every_step_that_needs_one_is_skipped_by_name_and_nothing_has_failed() {
        if DeviceMonitor::open(0).is_ok() {
            return; // Here the steps are climbed, which takes minutes, and is what the program is for.
        }
        let ladder = check(&Options { provider: Provider::Cuda, seconds: 0.0 });
        let figures = ladder.figures();
        let skipped = figures["skipped"].as_array().expect("a list of names");
        for step in Step::ALL.iter().filter(|&&step| step != Step::Library) {
            assert!(skipped.contains(&json!(step.name())), "{} is not in {figures}", step.name());
        }
        assert_eq!(figures["gpu"], json!(0));
        assert!(!ladder.has_failed(), "{ladder}");
        let text = ladder.to_string();
        assert!(text.contains("NVIDIA device 0 cannot be monitored") && text.contains("skipped   no GPU"), "{text}");
    }
}
