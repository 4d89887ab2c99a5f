//! The runtime alone, in a program of one's own: two threads, each with a session of the same model.
//!
//! ```sh
//! cargo run --release -p volley-gpu-runtime --example embed
//! ```

use std::error::Error;
use std::io::{Write, stdout};
use std::path::Path;
use std::thread;

use volley_gpu_runtime::{Library, Model, ModelConfig, ModelFolder, ModelOptions};

const BATCHES: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let library = Library::load(None)?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/repository/cnn_lstm");
    let folder = ModelFolder::read(&folder, ModelConfig::default())?;
    let options = ModelOptions::default().with(&folder.config)?;
    let version = folder.latest();
    let model = Model::load(&library, version, &version.variants[0], options)?;
    writeln!(stdout(), "{} `{}` runs on {}", folder.name, model.variant(), model.placement())?;

    let rows = thread::scope(|scope| {
        let workers = [1.0_f32, 2.0].map(|scale| {
            let model = &model;
            scope.spawn(move || work(model, scale).map_err(|error| error.to_string()))
        });
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).sum::<Result<usize, _>>()
    })?;
    writeln!(stdout(), "{rows} rows were answered")?;
    Ok(())
}

/// A worker: it owns its session, so it needs no lock. Returns how many rows it had answered.
fn work(model: &Model, scale: f32) -> Result<usize, Box<dyn Error>> {
    let mut session = model.open_warm_session()?;
    let batch = model.best_batch().get();
    let values = model.inputs()[0].row_elements();
    let row: Vec<u8> = (0..values).flat_map(|i| ((i % 7) as f32 * scale).to_le_bytes()).collect();
    let mut answered = 0;
    for _ in 0..BATCHES {
        for place in 0..batch {
            session.write(0, place, [&row[..]]);
        }
        let outputs = session.run(batch)?;
        // Each caller's share may outlive the batch and go to another thread.
        answered += (0..batch).map(|place| outputs.rows(place..place + 1)).filter(|o| !o.tensor(0).is_empty()).count();
    }
    Ok(answered)
}
