//! The model that ships, through the real ONNX Runtime.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use volley_gpu_runtime::{
    DataType, DeclaredTensor, Library, Model, ModelOptions, Provider, ProviderPreference, Repository, Session,
    VersionFolder,
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

/// A folder that is gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("volley-bundled-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sizes(rows: &[usize]) -> Vec<NonZeroUsize> {
    rows.iter().map(|&rows| NonZeroUsize::new(rows).expect("not zero")).collect()
}

/// The bundled golden file with every value moved by `offset`.
fn golden_moved_by(file: &Path, offset: f32) -> PathBuf {
    let bytes = std::fs::read(version().golden.expect("it ships")).expect("it ships");
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let moved = bytes[header..]
        .chunks_exact(4)
        .flat_map(|b| (f32::from_le_bytes([b[0], b[1], b[2], b[3]]) + offset).to_le_bytes());
    let moved: Vec<u8> = bytes[..header].iter().copied().chain(moved).collect();
    std::fs::write(file, moved).expect("writable");
    file.to_path_buf()
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
    assert!(library.was_built_with(Provider::Cpu) && !library.was_built_with(Provider::TensorRt));
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
fn each_failure_to_load_has_a_word_of_its_own() {
    let library = Library::load(None).unwrap_or_else(|error| panic!("{error}"));
    let fp32 = |version: &VersionFolder, options| {
        let file = version.variants.iter().find(|file| file.name == "fp32").expect("it ships");
        let error = Model::load(&library, version, file, options).expect_err("it is refused");
        (error.reason(), error.to_string())
    };
    let good = version();
    let default = ModelOptions::default;
    let input = |name: &str, row_shape: &[i64]| {
        let input = DeclaredTensor { name: name.into(), data_type: DataType::Fp32, row_shape: row_shape.to_vec() };
        ModelOptions { inputs: Some(vec![input]), ..default() }
    };
    let mut absent = good.clone();
    absent.variants[0].path = "absent/model.onnx".into();
    let strict = ModelOptions { golden_tolerance: 0.0, batch_sizes: sizes(&[3]), ..default() };
    let mut off = good.clone();
    let folder = Scratch::new("reasons");
    off.golden = Some(golden_moved_by(&folder.0.join("golden.safetensors"), 0.01));
    let gpu = ProviderPreference { order: vec![Provider::TensorRt], require: true, device: 0 };
    let missing = ModelOptions { operator_libraries: vec!["absent.so".into()], ..default() };
    for ((reason, message), expected) in [
        (fp32(&absent, default()), ("unreadable", "absent/model.onnx: the file cannot be read")),
        (
            fp32(&good, input("window", &[50, 60])),
            ("interface", "declares the input window FP32[N,50,60]; the file has"),
        ),
        (fp32(&good, input("input", &[50, 61])), ("interface", "declares the input input FP32[N,50,61]; the file has")),
        (fp32(&off, strict), ("golden", "golden check: output `features` of rows 0..1 (in a batch of 1) is off by")),
        (
            fp32(&good, ModelOptions { batch_sizes: sizes(&[64]), ..default() }),
            ("options", "at most the largest batch, 32"),
        ),
        (fp32(&good, missing), ("no_operators", "the library of operators absent.so cannot be read")),
    ] {
        assert!(reason == expected.0 && message.contains(expected.1), "{reason}: {message}");
    }
    if Model::load(&library, &good, &good.variants[0], ModelOptions { providers: gpu.clone(), ..default() }).is_err() {
        assert_eq!(fp32(&good, ModelOptions { providers: gpu, ..default() }).0, "no_provider");
    }
    let whatever = input("input", &[-1, 60]);
    Model::load(&library, &good, &good.variants[0], whatever).expect("any length is allowed");
}

#[test]
fn what_is_served_is_what_was_checked_even_if_the_file_is_replaced() {
    let library = Library::load(None).unwrap_or_else(|error| panic!("{error}"));
    let folder = Scratch::new("swapped");
    let mut version = version();
    version.variants.retain(|file| file.name == "fp32");
    let original = std::fs::read(&version.variants[0].path).expect("it ships");
    let other = std::fs::read(repository().join("cnn_lstm/1/model.int8.onnx")).expect("it ships");
    version.variants[0].path = folder.0.join("model.onnx");
    std::fs::write(&version.variants[0].path, &original).expect("writable");
    let model = Model::load(&library, &version, &version.variants[0], ModelOptions::default()).expect("it is good");
    let before = run(&mut model.open_session().expect("it opens"), &[3]);
    std::fs::write(&version.variants[0].path, other).expect("writable");
    assert_eq!(run(&mut model.open_session().expect("it opens"), &[3]), before);
    assert!(model.file_bytes().eq([&original[..]]), "the digest would be of another file");
}

/// The bundled fp32 file, its golden file beside it, in a folder of its own.
fn copied(folder: &Scratch) -> VersionFolder {
    for file in ["model.onnx", "golden.safetensors"] {
        std::fs::create_dir_all(folder.0.join("1")).expect("writable");
        std::fs::copy(repository().join("cnn_lstm/1").join(file), folder.0.join("1").join(file)).expect("it ships");
    }
    VersionFolder::read(&folder.0.join("1"), "model.onnx").expect("two files were copied")
}

/// The files of a version's record that end so.
fn kept(version: &VersionFolder, end: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(version.path.join(".volley")).expect("a record was kept");
    files.map(|file| file.expect("listed").path()).filter(|path| path.extension().is_some_and(|e| e == end)).collect()
}

#[test]
fn a_second_load_uses_what_the_first_kept_to_the_same_answers() {
    let library = Library::load(None).unwrap_or_else(|error| panic!("{error}"));
    let folder = Scratch::new("record");
    let version = copied(&folder);
    let load = || Model::load(&library, &version, &version.variants[0], ModelOptions::default()).expect("it is good");
    // What is asked for is kept however busy the machine is.
    let first = Model::compile(&library, &version, &version.variants[0], ModelOptions::default()).expect("it is good");
    let (record, graph) = (kept(&version, "toml"), kept(&version, "onnx"));
    assert_eq!((record.len(), graph.len()), (1, 1));
    let answers = run(&mut first.open_session().expect("it opens"), &[0, 6, 1]);

    // A measurement that no machine makes shows that none was made.
    let text = std::fs::read_to_string(&record[0]).expect("it was kept");
    let line = text.lines().find(|line| line.starts_with("seconds")).expect("a size was measured");
    std::fs::write(&record[0], text.replacen(line, "seconds = 1e-8", 1)).expect("writable");
    let second = load();
    assert_eq!(second.measured()[0].seconds, 1e-8);
    assert_eq!(run(&mut second.open_session().expect("it opens"), &[0, 6, 1]), answers);
    assert_eq!(second.placement().provider, first.placement().provider);
    assert!(second.file_bytes().eq(first.file_bytes()), "the digest is the file's, not the graph's");

    let anew = Model::compile(&library, &version, &version.variants[0], ModelOptions::default()).expect("it is good");
    assert_ne!(anew.measured()[0].seconds, 1e-8);
    let other = ModelOptions { max_batch: NonZeroUsize::new(4).expect("not zero"), ..Default::default() };
    Model::load(&library, &version, &version.variants[0], other).expect("it is good");
    assert_eq!(kept(&version, "toml").len(), 2, "other options, another record");
}

#[test]
fn a_kept_graph_that_answers_wrongly_costs_time_and_nothing_else() {
    let library = Library::load(None).unwrap_or_else(|error| panic!("{error}"));
    let folder = Scratch::new("wrong-graph");
    let version = copied(&folder);
    let load = || Model::load(&library, &version, &version.variants[0], ModelOptions::default()).expect("it is good");
    let answers = run(&mut load().open_session().expect("it opens"), &[3]);
    // The INT8 variant's graph under the digest it has: whole, and of another model.
    let int8 = Scratch::new("wrong-graph-int8");
    std::fs::create_dir_all(int8.0.join("1")).expect("writable");
    std::fs::copy(repository().join("cnn_lstm/1/model.int8.onnx"), int8.0.join("1/model.onnx")).expect("it ships");
    let other = VersionFolder::read(&int8.0.join("1"), "model.onnx").expect("it was copied");
    Model::load(&library, &other, &other.variants[0], ModelOptions::default()).expect("nothing checks it");
    for end in ["toml", "onnx"] {
        std::fs::copy(&kept(&other, end)[0], &kept(&version, end)[0]).expect("writable");
    }
    assert_eq!(run(&mut load().open_session().expect("it opens"), &[3]), answers);
    let mended = std::fs::read(&kept(&version, "onnx")[0]).expect("it was kept");
    assert!(mended != std::fs::read(&kept(&other, "onnx")[0]).expect("it was kept"), "the record is written anew");
}

#[test]
fn the_sizes_that_will_be_used_are_the_ones_measured() {
    let model = load("int8", ModelOptions { batch_sizes: sizes(&[1, 6]), ..Default::default() });
    assert_eq!(model.measured().iter().map(|size| size.rows).collect::<Vec<_>>(), [1, 6]);
    assert!(model.rows_per_second() > 0.0 && [1, 6].contains(&model.best_batch().get()));
    assert_eq!(model.variant(), "int8");
}

#[test]
#[should_panic(expected = "a batch has 1 to 4 rows, not 0")]
fn an_empty_batch_never_reaches_onnx_runtime() {
    let max_batch = NonZeroUsize::new(4).expect("not zero");
    let mut session = load("fp32", ModelOptions { max_batch, ..Default::default() }).open_session().expect("it opens");
    let _ = session.run(0);
}
