//! Models whose weights are in a file beside the model file.

use std::fs;
use std::path::{Path, PathBuf};

use volley_gpu_runtime::{Library, LoadError, Model, ModelOptions, VariantFile, VersionFolder};

/// A copy of the model in a folder of its own, removed when dropped.
struct Copied(PathBuf);

impl Copied {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("volley-external-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the temporary folder is writable");
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        for file in ["external.onnx", "external.bin"] {
            fs::copy(models.join(file), folder.join(file)).expect("the model is there");
        }
        Self(folder)
    }

    /// Writes the weights anew, each by what `value` says of its number.
    fn set_weights(&self, value: impl Fn(usize) -> f32) {
        let bytes: Vec<u8> = (0..64).flat_map(|number| value(number).to_le_bytes()).collect();
        fs::write(self.0.join("external.bin"), bytes).expect("the temporary folder is writable");
    }

    fn load(&self) -> Result<Model, LoadError> {
        let library = Library::load(None).unwrap_or_else(|error| panic!("{error}"));
        let file = VariantFile { name: "fp32".to_owned(), path: self.0.join("external.onnx") };
        let variants = vec![file.clone()];
        let version = VersionFolder { number: 1, path: self.0.clone(), variants, golden: None };
        Model::load(&library, &version, &file, ModelOptions::default())
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The first row of the weights, which is what the model answers to (1, 0, 0, 0).
fn first_row(model: &Model) -> Vec<f32> {
    let mut session = model.open_session().expect("it opens");
    let question: Vec<u8> = [1.0_f32, 0.0, 0.0, 0.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    session.write(0, 0, [&question[..]]);
    let answer = session.run(1).expect("it runs").rows(0..1).tensor(0);
    answer.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn counted(from: f32) -> Vec<f32> {
    (0..16).map(|number| from + number as f32).collect()
}

#[test]
fn weights_in_another_file_are_read_once_and_are_part_of_what_is_hashed() {
    let copied = Copied::new("once");
    let model = copied.load().expect("both files are there");
    assert_eq!(first_row(&model), counted(0.0));
    let files: Vec<Vec<u8>> =
        ["external.onnx", "external.bin"].map(|file| fs::read(copied.0.join(file)).expect("it")).into();
    assert!(model.file_bytes().eq(files.iter().map(Vec::as_slice)));

    copied.set_weights(|number| number as f32 + 100.0);
    assert_eq!(first_row(&model), counted(0.0), "what was loaded is what is served");
    let other = copied.load().expect("both files are there");
    assert_eq!(first_row(&other), counted(100.0), "the graph that was kept is of other weights");
}

#[test]
fn a_second_load_with_weights_in_another_file_answers_as_the_first() {
    let copied = Copied::new("kept");
    copied.load().expect("both files are there");
    let kept = fs::read_dir(copied.0.join(".volley")).expect("a record was kept");
    let mut graphs =
        kept.map(|file| file.expect("listed").path()).filter(|path| path.extension() == Some("onnx".as_ref()));
    let graph = fs::read(graphs.next().expect("a graph was kept")).expect("it is there");
    let weights = fs::read(copied.0.join("external.bin")).expect("it is there");
    assert!(graph.windows(weights.len()).any(|bytes| bytes == weights), "it needs no other file");
    let again = copied.load().expect("from the graph that was kept");
    assert_eq!(first_row(&again), counted(0.0));
}

#[test]
fn weights_that_are_missing_or_too_few_are_refused_by_the_name_of_their_file() {
    let copied = Copied::new("missing");
    fs::write(copied.0.join("external.bin"), [0; 100]).expect("the temporary folder is writable");
    let error = copied.load().expect_err("100 of 256 bytes");
    assert!(error.reason() == "external" && error.to_string().contains("external.bin"), "{error}");
    fs::remove_file(copied.0.join("external.bin")).expect("it is there");
    let error = copied.load().expect_err("no file");
    assert!(error.reason() == "external" && error.to_string().contains("external.bin"), "{error}");
}
