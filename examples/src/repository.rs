//! A model repository that may be spoilt.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

/// A way to spoil a version's folder.
pub type Spoil = fn(&Path) -> io::Result<()>;

/// What a version can be spoilt by, so that it must not be served.
pub const SPOILINGS: [(&str, Spoil); 3] =
    [("golden_off", golden_off), ("truncated_file", truncated), ("renamed_input", renamed_input)];

/// A folder with a copy of the bundled model as version 1 of `cnn_lstm`; removed when dropped.
#[derive(Debug)]
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// Makes the copy, in the system's temporary folder.
    ///
    /// # Errors
    /// When the bundled model cannot be copied.
    pub fn new() -> io::Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("volley-repository-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let repository = Self { root: std::env::temp_dir().join(name) };
        repository.add_version(1)?;
        Ok(repository)
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Adds the bundled model as another version, and returns its folder.
    ///
    /// # Errors
    /// When the bundled model cannot be copied.
    pub fn add_version(&self, version: u32) -> io::Result<PathBuf> {
        let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/repository/cnn_lstm/1");
        let folder = self.root.join("cnn_lstm").join(version.to_string());
        fs::create_dir_all(&folder)?;
        for file in ["model.onnx", "model.int8.onnx", "golden.safetensors"] {
            fs::copy(bundled.join(file), folder.join(file))?;
        }
        Ok(folder)
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Changes one number of the golden outputs of each variant.
fn golden_off(folder: &Path) -> io::Result<()> {
    let path = folder.join("golden.safetensors");
    let mut bytes = fs::read(&path)?;
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length])?;
    for (_, tensor) in header.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with(".prediction")) {
        let offset = tensor["data_offsets"][0].as_u64().expect("a golden output") as usize;
        bytes[8 + length + offset..][..4].copy_from_slice(&0.75_f32.to_le_bytes());
    }
    fs::write(path, bytes)
}

/// Cuts the model of each variant in half.
fn truncated(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "onnx") {
            let bytes = fs::read(&path)?;
            fs::write(path, &bytes[..bytes.len() / 2])?;
        }
    }
    Ok(())
}

/// Names the golden input otherwise than the model's.
fn renamed_input(folder: &Path) -> io::Result<()> {
    let path = folder.join("golden.safetensors");
    let mut bytes = fs::read(&path)?;
    let name = b"\"input\"";
    let at = bytes.windows(name.len()).position(|window| window == name).expect("the header names it");
    bytes[at..at + name.len()].copy_from_slice(b"\"inpot\"");
    fs::write(path, bytes)
}
