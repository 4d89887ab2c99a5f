//! Models whose answer to a row depends on the others, or on chance.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use volley_gpu_runtime::{Company, Library, Model, ModelOptions, VariantFile, VersionFolder};

/// What is found out about a model file, which has no golden outputs beside it.
fn company(model: &str, options: ModelOptions) -> Company {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let scratch = std::env::temp_dir().join(format!("volley-company-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("the temporary folder is writable");
    let path = scratch.join("model.onnx");
    let file = match model.strip_prefix("bundled/") {
        Some(model) => folder.join(format!("../../../../models/repository/cnn_lstm/1/{model}.onnx")),
        None => folder.join(format!("{model}.onnx")),
    };
    std::fs::copy(file, &path).expect("the model is there");
    let file = VariantFile { name: "fp32".to_owned(), path };
    let version = VersionFolder { number: 1, path: scratch.clone(), variants: vec![file.clone()], golden: None };
    let library = Library::load(None).unwrap_or_else(|error| panic!("{error}"));
    let loaded = Model::load(&library, &version, &file, options);
    let _ = std::fs::remove_dir_all(&scratch);
    loaded.unwrap_or_else(|error| panic!("{error}")).company()
}

#[test]
fn what_a_rows_answer_depends_on_is_found_out_at_load() {
    let found = |model| company(model, ModelOptions::default());
    for usual in ["echo", "bundled/model", "bundled/model.int8"] {
        assert_eq!(found(usual), Company::Indifferent, "{usual}");
    }
    assert_eq!(found("mean"), Company::Matters);
    assert_eq!(found("dynamic"), Company::Matters);
    assert_eq!(found("chance"), Company::Random);
}

#[test]
fn what_a_rows_answer_depends_on_is_found_out_whatever_sizes_batches_have() {
    let size = |size| NonZeroUsize::new(size).expect("not zero");
    let of_sizes = |sizes: &[usize]| {
        let batch_sizes: Vec<_> = sizes.iter().copied().map(size).collect();
        ModelOptions { max_batch: *batch_sizes.last().expect("some"), batch_sizes, ..ModelOptions::default() }
    };
    assert_eq!(company("mean", of_sizes(&[3, 8])), Company::Matters);
    assert_eq!(company("echo", of_sizes(&[2])), Company::Indifferent);
    assert_eq!(company("mean", of_sizes(&[1])), Company::Indifferent, "nobody has company");
    assert_eq!(company("chance", of_sizes(&[1])), Company::Random);
}
