//! A model repository of a test's own.

use std::fs;
use std::path::{Path, PathBuf};

/// Removed when dropped.
pub(crate) struct Repository(pub PathBuf);

impl Repository {
    /// An empty one.
    pub(crate) fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("volley-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("the temporary folder is writable");
        Self(root)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    /// Adds the bundled model, or files of it, as a version of `cnn_lstm`.
    pub(crate) fn add_bundled(&self, version: u32, files: &[&str]) -> PathBuf {
        let folder = self.0.join("cnn_lstm").join(version.to_string());
        fs::create_dir_all(&folder).expect("the temporary folder is writable");
        for file in files {
            fs::copy(bundled().join(file), folder.join(file)).expect("the bundled model is there");
        }
        folder
    }

    /// What the folder of `model` says of it.
    pub(crate) fn configure(&self, model: &str, config: &str) {
        fs::write(self.0.join(model).join("config.toml"), config).expect("the temporary folder is writable");
    }

    /// Adds the model `breaking`, which does what [`Repository::fault`] says: at first nothing unusual.
    pub(crate) fn add_breaking(&self) {
        let folder = self.0.join("breaking/1");
        fs::create_dir_all(&folder).expect("the temporary folder is writable");
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gpu-runtime/tests/models");
        fs::copy(models.join("fault.onnx"), folder.join("model.onnx")).expect("the model is there");
        let program = std::env::current_exe().expect("tests run from a file");
        let built = program.ancestors().nth(2).expect("cargo's folder").join("examples/libfaulty_operators.so");
        assert!(built.is_file(), "missing; make it: cargo build -p volley-gpu-runtime --example faulty_operators");
        self.configure("breaking", &format!("operator_libraries = [{built:?}]\n"));
        self.fault("pass");
    }

    /// Makes `breaking` an ensemble of the variant that breaks, which can be asked as one of the ensemble alone, and of
    /// `echo`, which never does and is the default.
    pub(crate) fn make_breaking_a_member(&self) {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gpu-runtime/tests/models");
        fs::copy(models.join("echo.onnx"), self.0.join("breaking/1/model.echo.onnx")).expect("the model is there");
        let config = fs::read_to_string(self.0.join("breaking/config.toml")).expect("it was written");
        let ensemble = "variants = [\"echo\"]\nensemble.members = [\"fp32\", \"echo\"]\n";
        self.configure("breaking", &(config + ensemble));
    }

    /// What the operator of `breaking` does from now on. By rename, so that it never reads half a word.
    pub(crate) fn fault(&self, word: &str) {
        fs::write(self.0.join("fault.next"), word).expect("the temporary folder is writable");
        fs::rename(self.0.join("fault.next"), self.fault_file()).expect("the temporary folder is writable");
    }

    /// Where the operator reads it.
    pub(crate) fn fault_file(&self) -> PathBuf {
        self.0.join("fault")
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/repository/cnn_lstm/1")
}
