//! A table of a version's variants: how large, how fast, on what, and the one that would be served.
//!
//! ```sh
//! cargo run --release -p volley-gpu-runtime --example variant_table -- models/repository/cnn_lstm
//! ```
//!
//! `volley-model compare` shows how far their answers are apart.

use std::error::Error;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use volley_gpu_runtime::{Library, Model, ModelConfig, ModelFolder, ModelOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let bundled = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/repository/cnn_lstm");
    let path = std::env::args_os().nth(1).map_or_else(bundled, PathBuf::from);
    let folder = ModelFolder::read(&path, ModelConfig::default())?;
    let library = Library::load(None)?;
    let options = ModelOptions::default().with(&folder.config)?;
    let version = folder.latest();
    let mut out = stdout().lock();
    writeln!(out, "{:<12}{:>8}{:>8}{:>10}  provider", "variant", "kB", "batch", "rows/s")?;
    let mut loaded = Vec::new();
    for file in &version.variants {
        match Model::load(&library, version, file, options.clone()) {
            Ok(model) => {
                let (size, rate) = (model.file_bytes().map(<[u8]>::len).sum::<usize>() / 1000, model.rows_per_second());
                let provider = model.placement().provider;
                writeln!(out, "{:<12}{size:>8}{:>8}{rate:>10.0}  {provider}", file.name, model.best_batch())?;
                loaded.push(model);
            }
            Err(error) => writeln!(out, "{:<12}{error}", file.name)?,
        }
    }
    let fastest = loaded.iter().max_by(|a, b| a.rows_per_second().total_cmp(&b.rows_per_second()));
    let fastest = fastest.ok_or("no variant can be served")?;
    writeln!(out, "the fastest that answers rightly here: {}", fastest.variant())?;
    Ok(())
}
