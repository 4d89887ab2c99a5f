//! The bundled model's variants side by side on one core: speed, what batch mates do to an answer, and accuracy.
//!
//! ```sh
//! just bench variants                 # about four minutes
//! just bench variants --rounds 3
//! ```
//!
//! In each round and for each batch size both variants run the way the server runs them (rows gathered into the bound
//! buffer, run, sliced for each caller), then as plain ONNX Runtime runs the same file, and once more as the server does,
//! in the opposite order. Ratios are taken within a round, so that a drift of the machine's speed cancels. The accuracy is what `python -m volley_models accuracy`
//! finds, with the same operators, on held-out data.

mod company;
mod speed;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use volley_examples::{Arguments, pin_this_process};
use volley_gpu_runtime::{Library, Model, ModelOptions, Repository};

const CORE: usize = 1;
const VARIANTS: [&str; 2] = ["fp32", "int8"];

fn main() -> Result<(), Box<dyn Error>> {
    let plan = plan()?;
    pin_this_process(CORE)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let library = Library::load(None)?;
    let repository = Repository::open(&root.join("models/repository"))?;
    let version = repository.models.iter().find(|model| model.name == "cnn_lstm").ok_or("no cnn_lstm")?.latest();
    let mut models = Vec::new();
    for variant in VARIANTS {
        let file = version.variants.iter().find(|file| file.name == variant).ok_or("a variant is missing")?;
        models.push((Model::load(&library, version, file, ModelOptions::default())?, file.path.clone()));
    }

    let mut report = String::new();
    eprintln!("speed: {} rounds ...", plan.rounds);
    let speed = speed::measure(&plan, library.path(), &models)?;
    writeln!(report, "{speed}")?;
    eprintln!("batch mates ...");
    let [fp32, int8] = [0, 1].map(|variant| company::measure(&models[variant].0));
    let (fp32, int8) = (fp32?, int8?);
    writeln!(
        report,
        "change of an answer by its batch mates, over {} random batches of up to {}:",
        int8.batches, int8.largest
    )?;
    writeln!(report, "  fp32 {fp32}\n  int8 {int8}\n")?;
    eprintln!("accuracy ...");
    let (table, accuracy) = accuracy(&root)?;
    writeln!(report, "{table}")?;
    let rounded = |value: f64, digits: i32| (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits);
    let figures = json!({
        "fp32_samples_s": rounded(speed.samples_per_second(0), 0),
        "int8_samples_s": rounded(speed.samples_per_second(1), 0),
        "int8_over_fp32": rounded(speed.int8_over_fp32().median(), 3),
        "int8_batch_max_abs_diff": int8.max(),
        "accuracy_drop_pp": accuracy["drop_pp"],
        "path_over_raw": rounded(speed.path_over_raw(), 3),
    });
    writeln!(stdout(), "{report}\n{figures}")?;
    Ok(())
}

fn plan() -> Result<speed::Plan, Box<dyn Error>> {
    let mut arguments = Arguments::of_this_process();
    let plan = speed::Plan {
        seconds: arguments.take("--seconds", 0.1, "of each measurement"),
        rounds: arguments.take("--rounds", 40, "how often each side is measured"),
    };
    arguments.finish()?;
    Ok(plan)
}

/// What the Python project prints for a person, and its last line.
fn accuracy(root: &Path) -> Result<(String, Value), Box<dyn Error>> {
    let python: PathBuf = std::path::absolute(root.join(".volley/venv/bin/python"))?;
    let output =
        Command::new(python).args(["-m", "volley_models", "accuracy"]).current_dir(root.join("models")).output()?;
    if !output.status.success() {
        return Err(format!("the accuracy was not found: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let printed = String::from_utf8(output.stdout)?;
    let (table, figures) = printed.trim_end().rsplit_once('\n').ok_or("no figures")?;
    Ok((table.to_owned(), serde_json::from_str(figures)?))
}
