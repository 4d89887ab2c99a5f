//! The variants that the steps are about, each open on the device and on the processor.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;

use volley_gpu_runtime::{
    Library, Model, ModelOptions, Provider, ProviderPreference, Repository, VariantFile, VersionFolder,
};

use crate::ladder::{Ladder, Step, Verdict};

/// The batch sizes that are measured.
pub(crate) const BATCHES: [usize; 4] = [1, 8, 32, 128];

/// A variant that runs on the device.
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    pub(crate) file: VariantFile,
    pub(crate) on_device: Model,
    /// The same file, for the answers to hold the device's against.
    pub(crate) on_cpu: Model,
}

/// The version of the bundled model that is served.
pub(crate) fn bundled() -> Result<VersionFolder, Box<dyn Error>> {
    let repository = Repository::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/repository"))?;
    let model = repository.models.iter().find(|model| model.name == "cnn_lstm");
    Ok(model.ok_or("the repository has no cnn_lstm")?.latest().clone())
}

/// How a model is run on `provider`, and on no other, with batches of up to `max_batch` rows.
pub(crate) fn on(provider: Provider, max_batch: usize) -> ModelOptions {
    ModelOptions {
        max_batch: NonZeroUsize::new(max_batch).expect("a batch has rows"),
        providers: ProviderPreference { order: vec![provider], require: true, device: 0 },
        ..ModelOptions::default()
    }
}

/// Opens each variant, and sees which provider really runs its nodes.
pub(crate) fn place(
    ladder: &mut Ladder,
    library: &Library,
    provider: Provider,
    version: &VersionFolder,
) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for name in ["fp32", "fp16", "int8"] {
        let Some(file) = version.variants.iter().find(|file| file.name == name) else {
            let number = version.number;
            let reason = format!("version {number} has no model.{name}.onnx; the Python project in models/ makes one");
            ladder.add(Step::Placement, name, Verdict::Skipped(reason));
            continue;
        };
        match open(library, provider, version, file, name) {
            Ok(candidate) => {
                ladder.add(Step::Placement, name, placement(&candidate.on_device));
                candidates.push(candidate);
            }
            Err(error) => ladder.add(Step::Placement, name, Verdict::Failed(error.to_string())),
        }
    }
    candidates
}

fn open(
    library: &Library,
    provider: Provider,
    version: &VersionFolder,
    file: &VariantFile,
    name: &'static str,
) -> Result<Candidate, Box<dyn Error>> {
    let largest = BATCHES[BATCHES.len() - 1];
    let sizes = BATCHES.iter().map(|&size| NonZeroUsize::new(size).expect("a batch has rows")).collect();
    let options = ModelOptions { batch_sizes: sizes, ..on(provider, largest) };
    Ok(Candidate {
        name,
        file: file.clone(),
        on_device: Model::load(library, version, file, options)?,
        on_cpu: Model::load(library, version, file, on(Provider::Cpu, largest))?,
    })
}

/// The nodes of each provider, and which operators are not the device's.
fn placement(model: &Model) -> Verdict {
    let placement = model.placement();
    let mut seen = placement.to_string();
    if placement.nodes.len() > 1 {
        let of_cpu = placement.operators.iter().filter(|placed| placed.provider.starts_with("CPU"));
        let names: Vec<String> = of_cpu.map(|placed| format!("{} {}", placed.nodes, placed.operator)).collect();
        seen += &format!(" ({})", names.join(", "));
    }
    Verdict::of(placement.is_confirmed(), seen)
}
