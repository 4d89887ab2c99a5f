//! The model that ships, through the real ONNX Runtime.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use volley_gpu_runtime::{
    Library, Model, ModelOptions, Provider, ProviderPreference, Repository, Session, VersionFolder,
};

const ROW: usize = 50 * 60;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/repository")
}

fn version() -> VersionFolder {
    let repository = Repository::open(&repository()).expect("the repository ships with the project");
    repository.models.iter().find(|model| model.name == "cnn_lstm").expect("the bundled model").latest().clone()
}

fn load(variant: &str, options: ModelOptions) -> Model {
    let library = Library::load(None).unwrap_or_else(|error| panic!("{error}"));
    let version = version();
    let file = version.variants.iter().find(|file| file.name == variant).expect("the variant ships");
    Model::load(&library, &version, file, options).unwrap_or_else(|error| panic!("{error}"))
}

/// A window of values that depends on `seed` alone; every seventh is a heavy outlier.
fn window(seed: usize) -> Vec<u8> {
    let scale = if seed % 7 == 6 { 1000.0 } else { 1.0 };
    (0..ROW).flat_map(|i| ((((seed * 31 + i * 17) % 101) as f32 / 50.0 - 1.0) * scale).to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn run(session: &mut Session, windows: &[usize]) -> Vec<Vec<f32>> {
    for (row, &seed) in windows.iter().enumerate() {
        session.write(0, row, [&window(seed)[..]]);
    }
    let batch = session.run(windows.len()).expect("it runs");
    (0..windows.len())
        .map(|row| {
            let outputs = batch.rows(row..row + 1);
            [floats(&outputs.tensor(0)), floats(&outputs.tensor(1))].concat()
        })
        .collect()
}

#[test]
fn every_variant_loads_on_the_cpu_and_meets_its_golden_outputs() {
    for file in version().variants {
        let providers = ProviderPreference { order: vec![Provider::Cpu], ..Default::default() };
        let model = load(&file.name, ModelOptions { providers, golden_tolerance: 1e-4, ..Default::default() });
        assert_eq!(model.inputs()[0].to_string(), "input FP32[N,50,60]");
        let outputs: Vec<String> = model.outputs().iter().map(ToString::to_string).collect();
        assert_eq!(outputs, ["features FP32[N,128]", "prediction FP32[N,3]"]);
        assert_eq!(model.placement().provider, Provider::Cpu);
        assert!(model.placement().nodes["CPUExecutionProvider"] > 0, "{}", model.placement());
    }
}

#[test]
fn an_answer_does_not_depend_on_batch_mates_or_batch_size() {
    for variant in ["fp32", "int8"] {
        let mut session = load(variant, ModelOptions::default()).open_session().expect("it opens");
        let alone: Vec<Vec<f32>> = (0..32).map(|seed| run(&mut session, &[seed]).remove(0)).collect();
        for size in 1..=32 {
            let windows: Vec<usize> = (0..size).map(|i| (i * 5 + size) % 32).collect();
            for (answer, &seed) in run(&mut session, &windows).iter().zip(&windows) {
                let diff = answer.iter().zip(&alone[seed]).fold(0.0_f32, |largest, (a, b)| largest.max((a - b).abs()));
                assert!(diff <= 1e-6, "{variant}: window {seed} moved by {diff:e} in a batch of {size}");
            }
        }
    }
}

#[test]
fn small_outputs_are_copies_and_large_ones_keep_their_buffer_from_being_written() {
    let mut session = load("fp32", ModelOptions::default()).open_session().expect("it opens");
    let of_batch = |session: &mut Session, seed: usize, rows: usize| {
        for row in 0..rows {
            session.write(0, row, [&window(seed)[..]]);
        }
        session.run(rows).expect("it runs").rows(0..rows)
    };
    // 8 rows of 131 values are more than the 4 kB that are copied.
    let held = of_batch(&mut session, 1, 8);
    let before = held.tensor(0).to_vec();
    let other = of_batch(&mut session, 2, 8);
    assert_ne!(other.tensor(0), before, "another window, another answer");
    assert_eq!(held.tensor(0), before, "a slice that is held was overwritten");
    let address = held.tensor(0).as_ptr();
    drop(held);
    let reused = of_batch(&mut session, 3, 8);
    assert_eq!(reused.tensor(0).as_ptr(), address, "a buffer nobody holds is bound again");
    let small = of_batch(&mut session, 1, 1);
    assert_eq!(small.tensor(0), before[..128 * 4]);
    assert_eq!(small.to_joined().len(), 131 * 4);
}

#[test]
fn pieces_of_any_size_make_up_a_row() {
    let mut session = load("fp32", ModelOptions::default()).open_session().expect("it opens");
    let whole = run(&mut session, &[5]);
    let bytes = window(5);
    session.write(0, 0, bytes.chunks(7));
    let outputs = session.run(1).expect("it runs").rows(0..1);
    assert_eq!(floats(&outputs.tensor(0)), whole[0][..128]);
}

#[test]
fn a_provider_that_is_not_there_is_passed_over_unless_it_is_required() {
    let order = vec![Provider::TensorRt, Provider::Cpu];
    let preference = |require| ProviderPreference { order: order.clone(), require, device: 0 };
    let model = load("fp32", ModelOptions { providers: preference(false), ..Default::default() });
    if model.placement().provider == Provider::TensorRt {
        return; // On a machine that has it there is nothing to pass over.
    }
    assert_eq!(model.placement().provider, Provider::Cpu);
    let library = Library::load(None).expect("it is loaded already");
    let version = version();
    let options = ModelOptions { providers: preference(true), ..Default::default() };
    let error = Model::load(&library, &version, &version.variants[0], options).expect_err("it is required");
    assert!(error.to_string().contains("tensorrt: the loaded ONNX Runtime library was built without it"), "{error}");
}

#[test]
fn what_cannot_be_served_is_refused_with_the_reason() {
    let library = Library::load(None).unwrap_or_else(|error| panic!("{error}"));
    let good = version();
    let scratch = std::env::temp_dir().join(format!("volley-runtime-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("the temporary folder is writable");
    let refused = |name: &str, bytes: &[u8], golden: Option<PathBuf>| {
        let mut version = good.clone();
        version.golden = golden;
        version.variants.retain(|file| file.name == "fp32");
        version.variants[0].path = scratch.join(name);
        std::fs::write(&version.variants[0].path, bytes).expect("the temporary folder is writable");
        Model::load(&library, &version, &version.variants[0], ModelOptions::default()).expect_err(name).to_string()
    };
    let original = std::fs::read(repository().join("cnn_lstm/1/model.onnx")).expect("it ships");
    let truncated = refused("truncated.onnx", &original[..original.len() / 2], None);
    assert!(truncated.contains("truncated.onnx") && truncated.contains("ONNX Runtime (cpu) refused it"), "{truncated}");

    let int8 = std::fs::read(repository().join("cnn_lstm/1/model.int8.onnx")).expect("it ships");
    let mismatch = refused("other.onnx", &int8, good.golden.clone());
    assert!(mismatch.contains("golden check: output") && mismatch.contains("is off by"), "{mismatch}");

    let no_golden = refused("model.onnx", &original, Some(scratch.join("absent.safetensors")));
    assert!(no_golden.contains("absent.safetensors cannot be used"), "{no_golden}");
    std::fs::remove_dir_all(scratch).expect("it was made above");
}

#[test]
#[should_panic(expected = "a batch has 1 to 4 rows, not 0")]
fn an_empty_batch_never_reaches_onnx_runtime() {
    let max_batch = NonZeroUsize::new(4).expect("not zero");
    let mut session = load("fp32", ModelOptions { max_batch, ..Default::default() }).open_session().expect("it opens");
    let _ = session.run(0);
}
