//! Plain ONNX Runtime on one thread: the yardstick that everything else is measured against.
//!
//! Runs a model file in a loop with nothing around it. For each line that it reads, a batch size and how many seconds, it
//! prints the samples per second as a JSON object:
//!
//! ```sh
//! cargo build --release -p volley-gpu-runtime --examples
//! printf '1 2\n8 2\n32 2\n' | taskset -c 0 target/release/examples/raw \
//!     .volley/lib/libonnxruntime.so.1.32.0 models/repository/cnn_lstm/1/model.onnx
//! ```
//!
//! The arguments are the library and the model, which has one float32 input. Operators of the domain `volley` come from the
//! example `operators`, which lies beside this program.

use std::error::Error;
use std::io::{Write, stdin, stdout};
use std::time::{Duration, Instant};

use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{TensorRef, ValueType};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: raw LIBRARY.so MODEL.onnx, and on standard input lines of BATCH SECONDS";
    let library = arguments.next().ok_or(usage)?;
    let model = arguments.next().ok_or(usage)?;

    let environment = ort::init_from(std::path::absolute(library)?)?.with_telemetry(false).build()?;
    let mut session = SessionBuilder::new(&environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_operator_library(std::env::current_exe()?.with_file_name("liboperators.so"))?
        .commit_from_file(&model)?;
    let ValueType::Tensor { shape, .. } = session.inputs()[0].dtype().clone() else {
        return Err("not a tensor".into());
    };
    let row: usize = shape.iter().skip(1).map(|&axis| axis as usize).product();
    for line in stdin().lines() {
        let line = line?;
        let (size, seconds) = line.split_once(' ').ok_or(usage)?;
        let (size, seconds): (usize, f64) = (size.parse()?, seconds.parse()?);
        // The windows of all benchmarks: an eight-bit LSTM leaves zeros out, and noise of another kind leaves it more.
        let scattered = |index: usize| (index as u32).wrapping_mul(2_654_435_761);
        let values: Vec<f32> = (0..size * row).map(|i| scattered(i) as f32 / 2_f32.powi(31) - 1.0).collect();
        let mut dims = shape.to_vec();
        dims[0] = size as i64;
        let mut run =
            || session.run(ort::inputs![TensorRef::from_array_view((dims.clone(), &values[..]))?]).map(|_| ());
        for _ in 0..3 {
            run()?;
        }
        let (started, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
        let mut samples = 0;
        while started.elapsed() < limit {
            run()?;
            samples += size;
        }
        let rate = samples as f64 / started.elapsed().as_secs_f64();
        writeln!(stdout(), "{{\"batch\":{size},\"samples_per_second\":{rate:.1}}}")?;
    }
    Ok(())
}
