//! The program `volley-model` on the bundled model.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A copy of the bundled version that is gone when the test is.
struct Version(PathBuf);

impl Version {
    fn copied(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("volley-model-{test}-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("net/1")).expect("the temporary folder is writable");
        let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/repository/cnn_lstm/1");
        for file in ["model.onnx", "model.int8.onnx", "golden.safetensors"] {
            std::fs::copy(bundled.join(file), folder.join("net/1").join(file)).expect("it ships");
        }
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join("net/1").join(name)
    }

    fn volley_model(&self, command: &str, more: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_volley-model"));
        program.arg(command).arg(self.0.join("net/1")).args(["--providers", "cpu"]).args(more);
        program.output().expect("the program starts")
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What was printed, if the exit status is as expected.
fn printed(output: &Output, status: i32) -> String {
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert_eq!(output.status.code(), Some(status), "{text}");
    text
}

fn last_line(text: &str) -> Value {
    serde_json::from_str(text.lines().next_back().expect("a line")).expect("JSON")
}

#[test]
fn inspect_tells_what_really_runs_in_eight_bits() {
    let version = Version::copied("inspect");
    let text = printed(&version.volley_model("inspect", &[]), 0);
    assert!(text.contains("input   input FP32[N,50,60]") && text.contains("output  prediction FP32[N,3]"), "{text}");
    let of_int8 = text.split("int8:").nth(1).expect("the variant is there");
    let line = |operator: &str| of_int8.lines().find(|line| line.contains(operator)).unwrap_or_default();
    assert!(line("volley.QLstm").ends_with("CPUExecutionProvider         yes"), "{of_int8}");
    assert!(line("QLinearConv").ends_with("yes"), "{of_int8}");
    assert!(!text.split("int8:").next().expect("fp32 is first").contains("yes"), "{text}");
    let single =
        Command::new(env!("CARGO_BIN_EXE_volley-model")).arg("inspect").arg(version.file("model.onnx")).output();
    assert!(printed(&single.expect("it starts"), 0).starts_with("model: "));
}

#[test]
fn gate_fails_with_one_when_a_variant_is_wrong_and_two_when_there_is_no_gate() {
    let version = Version::copied("gate");
    let text = printed(&version.volley_model("gate", &[]), 0);
    assert_eq!(text.matches(" pass ").count(), 2, "{text}");
    std::fs::copy(version.file("model.int8.onnx"), version.file("model.onnx")).expect("writable");
    let text = printed(&version.volley_model("gate", &[]), 1);
    assert!(text.contains("golden check: output") && text.matches(" pass ").count() == 1, "{text}");
    std::fs::remove_file(version.file("golden.safetensors")).expect("it was copied");
    let text = printed(&version.volley_model("gate", &[]), 2);
    assert!(text.contains("nothing to hold the variants against"), "{text}");
}

#[test]
fn bench_prints_a_table_and_its_figures_as_json() {
    let version = Version::copied("bench");
    let text = printed(&version.volley_model("bench", &["--seconds", "0", "--max-batch", "4"]), 0);
    let figures = last_line(&text);
    for variant in ["fp32", "int8"] {
        let sizes: Vec<_> = figures[variant].as_array().expect("sizes").iter().map(|size| &size["rows"]).collect();
        assert_eq!(sizes, [1, 2, 4], "{text}");
    }
}

#[test]
fn compare_finds_variants_apart_and_answers_the_same_in_any_company() {
    let version = Version::copied("compare");
    let text = printed(&version.volley_model("compare", &[]), 0);
    let row = |variant: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(variant)).expect("a row");
        line.split_whitespace().map(str::to_owned).collect()
    };
    let (fp32, int8) = (row("fp32 "), row("int8 "));
    assert_eq!((fp32[4].as_str(), fp32[5].as_str()), ("1.00", "0.0e0"), "{text}");
    assert!(int8[5].parse::<f32>().expect("a number") > 0.0, "{text}");
    for row in [fp32, int8] {
        assert!(row[7].parse::<f32>().expect("a number") <= 1e-6, "{text}");
    }
}

#[test]
fn compile_leaves_a_record_for_each_variant() {
    let version = Version::copied("compile");
    let text = printed(&version.volley_model("compile", &["--max-batch", "2"]), 0);
    assert_eq!(text.matches("best").count(), 2, "{text}");
    let files = std::fs::read_dir(version.file(".volley")).expect("it was kept");
    assert_eq!(files.count(), 4, "measurements and a graph for each");
}

#[test]
fn evaluate_counts_what_is_right() {
    let version = Version::copied("evaluate");
    // The golden predictions' own classes are the labels: fp32 is then always right.
    let content = std::fs::read(version.file("golden.safetensors")).expect("it ships");
    let golden = safetensors::SafeTensors::deserialize(&content).expect("it ships");
    let prediction = golden.tensor("fp32.prediction").expect("it is there");
    let labels: Vec<u8> = prediction
        .data()
        .chunks_exact(12)
        .map(|row| {
            let value = |i: usize| f32::from_le_bytes(row[i * 4..i * 4 + 4].try_into().expect("four bytes"));
            (0..3).max_by(|&a, &b| value(a).total_cmp(&value(b))).expect("three classes") as u8
        })
        .collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![labels.len()], &labels).expect("good");
    let tensors = [("input", golden.tensor("input").expect("it is there")), ("labels", view)];
    let data = safetensors::serialize(tensors, None).expect("good");
    std::fs::write(version.file("data.safetensors"), data).expect("writable");
    let data = version.file("data.safetensors");
    let data = data.to_str().expect("plain");
    let figures = last_line(&printed(&version.volley_model("evaluate", &["--data", data]), 0));
    assert_eq!(figures["fp32"]["accuracy"], 1.0);
    assert_eq!(figures["int8"]["rows"], labels.len());
    let text = printed(&version.volley_model("evaluate", &["--data", data, "--labels", "truth"]), 2);
    assert!(text.contains("no tensor `truth`"), "{text}");
}
