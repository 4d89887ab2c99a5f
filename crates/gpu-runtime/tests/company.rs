//! Models whose answer to a row depends on the others, or on chance.

use std::num::NonZeroUsize;
use std::path::Path;

use volley_gpu_runtime::{Company, Library, Model, ModelOptions, VariantFile, VersionFolder};

fn company(model: &str, options: ModelOptions) -> Company {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let scratch = std::env::temp_dir().join(format!("volley-company-{model}-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("the temporary folder is writable");
    let path = scratch.join("model.onnx");
    std::fs::copy(folder.join(format!("{model}.onnx")), &path).expect("the model is there");
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
    assert_eq!(found("echo"), Company::Indifferent);
    assert_eq!(found("mean"), Company::Matters);
    assert_eq!(found("dynamic"), Company::Matters);
    assert_eq!(found("chance"), Company::Random);
}

#[test]
fn where_batches_have_given_sizes_only_those_are_asked() {
    let size = |size| NonZeroUsize::new(size).expect("not zero");
    let of_sizes = |sizes: &[usize]| {
        let batch_sizes: Vec<_> = sizes.iter().copied().map(size).collect();
        ModelOptions { max_batch: *batch_sizes.last().expect("some"), batch_sizes, ..ModelOptions::default() }
    };
    assert_eq!(company("mean", of_sizes(&[3, 8])), Company::Matters);
    assert_eq!(company("echo", of_sizes(&[2])), Company::Indifferent);
    assert_eq!(company("mean", of_sizes(&[1])), Company::Unknown, "nobody has company");
}
