//! What a start learned of a model file on this machine, kept so that the next one need not learn it again: what each
//! batch size costs, and on the CPU the graph as ONNX Runtime optimised it.
//!
//! ```text
//! <version>/.volley/               or, where that cannot be written, `volley` in the user's cache folder
//!   model.int8-<key>.toml          the measurements, and the digest of the graph
//!   model.int8-<key>.onnx          the graph
//! ```
//!
//! TensorRT's own engines and timings are in `volley/tensorrt` of the cache folder.
//!
//! The key is a digest of all that the measurements depend on: the file, ONNX Runtime's version and this crate's, the
//! provider, the device, the threads and the batch sizes. A record that does not read as expected is as good as none, and
//! is written anew. Files appear whole, by renaming; of two processes that write at once one is the last, and a graph that
//! does not have the digest its record names is not used. Where nothing can be written nothing is kept, and measurements
//! that were disturbed are not either, unless they were asked for.
//!
//! Opening the kept graph instead of optimising anew takes 1.3 ms instead of 1.6 for the bundled fp32 file, 2.4 instead of
//! 4.1 for INT8 (the least of 15 on a shared virtual machine, not pinned, ONNX Runtime 1.32), and answers are the same to the
//! bit. It must pass the golden check as any file must, so a graph that has gone wrong costs time and nothing else.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use highway::{HighwayHash, HighwayHasher, Key};
use serde::{Deserialize, Serialize};

use crate::autotune::Measured;
use crate::file::ModelFile;
use crate::library::Library;
use crate::model::ModelOptions;
use crate::provider::Provider;

/// Where one file's record is.
#[derive(Debug)]
pub(crate) struct Record {
    /// Looked into, and written to, in this order.
    folders: Vec<PathBuf>,
    /// The files' name without its end.
    name: String,
    sizes: Vec<usize>,
}

/// What a record holds.
#[derive(Debug, PartialEq)]
pub(crate) struct Kept {
    /// Of all batch sizes, if it was steady.
    pub(crate) measured: Option<Vec<Measured>>,
    /// The optimised graph.
    pub(crate) graph: Option<Vec<u8>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    graph: Option<String>,
    measured: Option<Vec<Measured>>,
}

impl Record {
    /// The record of the model file at `path` with the content `file`, run by `provider`.
    pub(crate) fn of(
        path: &Path,
        file: &ModelFile,
        library: &Library,
        options: &ModelOptions,
        provider: Provider,
    ) -> Self {
        let sizes = options.sizes();
        let mut key = Digest::default();
        key.field(env!("CARGO_PKG_VERSION").as_bytes());
        // An unoptimised build measures differently.
        key.field(&[u8::from(cfg!(debug_assertions))]);
        key.field(library.version().as_bytes());
        key.field(provider.name().as_bytes());
        key.field(device(provider, options.providers.device).as_bytes());
        for number in [options.intra_op_threads.get(), options.inter_op_threads.get(), options.spinning.into()]
            .into_iter()
            .chain([options.gpu_memory_limit.unwrap_or(0), options.max_batch.get()])
            .chain(sizes.iter().copied())
        {
            key.field(&number.to_le_bytes());
        }
        for library in &options.operator_libraries {
            key.field(&fs::read(library).unwrap_or_default());
        }
        for bytes in file.parts() {
            key.field(bytes);
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let beside = path.parent().map(|version| version.join(".volley"));
        let folders = beside.into_iter().chain(cache_folder()).collect();
        Self { folders, name: format!("{stem}-{}", key.hex()), sizes }
    }

    /// What was kept, if it is whole and of these batch sizes.
    pub(crate) fn read(&self) -> Option<Kept> {
        self.folders.iter().find_map(|folder| self.read_in(folder))
    }

    fn read_in(&self, folder: &Path) -> Option<Kept> {
        let text = fs::read_to_string(self.path(folder, "toml")).ok()?;
        let file: File = toml::from_str(&text).ok()?;
        if let Some(measured) = &file.measured {
            let sizes = measured.iter().map(|size| size.rows);
            let sound = measured.iter().all(|size| size.seconds.is_finite() && size.seconds > 0.0);
            if !sound || !sizes.eq(self.sizes.iter().copied()) {
                return None;
            }
        }
        let graph = file.graph.and_then(|digest| {
            let graph = fs::read(self.path(folder, "onnx")).ok()?;
            (Digest::of(&graph) == digest).then_some(graph)
        });
        Some(Kept { measured: file.measured, graph })
    }

    /// A path, in a folder that can be written, for ONNX Runtime to write a graph to; it is gone when dropped.
    pub(crate) fn new_graph(&self) -> Option<Unfinished> {
        self.folders.iter().find_map(|folder| Unfinished::new(folder, "onnx").ok())
    }

    /// Keeps the measurements and the graph; whether it could.
    pub(crate) fn write(&self, measured: Option<&[Measured]>, graph: Option<&[u8]>) -> bool {
        let written = self.folders.iter().any(|folder| self.write_in(folder, measured, graph).is_ok());
        if !written {
            tracing::debug!(record = self.name, folders = ?self.folders, "nothing is kept: no folder can be written");
        }
        written
    }

    fn write_in(&self, folder: &Path, measured: Option<&[Measured]>, graph: Option<&[u8]>) -> io::Result<()> {
        let file = File { graph: graph.map(Digest::of), measured: measured.map(<[Measured]>::to_vec) };
        let text = toml::to_string(&file).map_err(io::Error::other)?;
        for (end, bytes) in [("onnx", graph), ("toml", Some(text.as_bytes()))] {
            let Some(bytes) = bytes else { continue };
            let unfinished = Unfinished::new(folder, end)?;
            fs::write(&unfinished.0, bytes)?;
            fs::rename(&unfinished.0, self.path(folder, end))?;
        }
        Ok(())
    }

    /// Where TensorRT may keep what it compiles, for all models: it names its files by what is in them.
    pub(crate) fn engines() -> Option<PathBuf> {
        cache_folder().map(|folder| folder.join("tensorrt")).filter(|folder| fs::create_dir_all(folder).is_ok())
    }

    fn path(&self, folder: &Path, end: &str) -> PathBuf {
        folder.join(format!("{}.{end}", self.name))
    }
}

/// A file of this process alone, gone when dropped unless it was renamed.
#[derive(Debug)]
pub(crate) struct Unfinished(pub(crate) PathBuf);

impl Unfinished {
    /// Makes it, empty, which shows that the folder can be written.
    fn new(folder: &Path, end: &str) -> io::Result<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        fs::create_dir_all(folder)?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".{}-{number}.{end}", std::process::id()));
        fs::File::create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// `volley` in the user's cache folder.
fn cache_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(folder.join("volley"))
}

/// A name for the hardware that changes when the speed of a graph, or what it is optimised for, may: the processor's name
/// and features, or the GPU's name. Empty where the system does not tell.
fn device(provider: Provider, index: i32) -> String {
    if provider == Provider::Cpu {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let of_first = text.split("\n\n").next().unwrap_or_default();
        let is_named =
            |line: &&str| ["model name", "flags", "CPU part", "Features"].iter().any(|key| line.starts_with(key));
        return of_first.lines().filter(is_named).collect::<Vec<_>>().join("\n");
    }
    let mut cards: Vec<PathBuf> = fs::read_dir("/proc/driver/nvidia/gpus")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("information")).collect())
        .unwrap_or_default();
    cards.sort();
    let card = usize::try_from(index).ok().and_then(|index| cards.get(index));
    let text = card.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    text.lines().find(|line| line.starts_with("Model:")).unwrap_or_default().to_owned()
}

/// A digest against mistakes, not against malice: who can write the record can write the model.
struct Digest(HighwayHasher);

impl Default for Digest {
    fn default() -> Self {
        Self(HighwayHasher::new(Key::default()))
    }
}

impl Digest {
    /// Adds a field; its length goes first, so that no two sequences of fields are the same bytes.
    fn field(&mut self, bytes: &[u8]) {
        self.0.append(&bytes.len().to_le_bytes());
        self.0.append(bytes);
    }

    fn hex(self) -> String {
        self.0.finalize128().iter().fold(String::new(), |mut text, part| {
            // Writing to a string does not fail.
            let _ = write!(text, "{part:016x}");
            text
        })
    }

    fn of(bytes: &[u8]) -> String {
        let mut digest = Self::default();
        digest.field(bytes);
        digest.hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const MEASURED: [Measured; 2] = [Measured { rows: 1, seconds: 1e-4 }, Measured { rows: 8, seconds: 4e-4 }];

    fn record(folders: &[&Path]) -> Record {
        let folders = folders.iter().map(|folder| folder.to_path_buf()).collect();
        Record { folders, name: "model-key".into(), sizes: vec![1, 8] }
    }

    fn write(record: &Record, graph: &[u8]) {
        assert!(record.write(Some(&MEASURED), Some(graph)));
    }

    #[test]
    fn what_is_kept_comes_back_and_leaves_nothing_else_behind() {
        let scratch = Scratch::new();
        let record = record(&[scratch.path()]);
        assert_eq!(record.read(), None);
        write(&record, b"graph");
        assert_eq!(record.read(), Some(Kept { measured: Some(MEASURED.to_vec()), graph: Some(b"graph".to_vec()) }));
        drop(record.new_graph());
        assert_eq!(fs::read_dir(scratch.path()).expect("there").count(), 2);
        record.write(None, Some(b"other"));
        assert_eq!(record.read(), Some(Kept { measured: None, graph: Some(b"other".to_vec()) }));
    }

    #[test]
    fn a_record_that_is_not_whole_is_as_good_as_none() {
        let scratch = Scratch::new();
        let record = record(&[scratch.path()]);
        write(&record, b"graph");
        scratch.write("model-key.onnx", b"a torn file");
        assert_eq!(record.read().expect("the measurements are whole").graph, None);
        let text = fs::read_to_string(scratch.path().join("model-key.toml")).expect("there");
        for broken in [
            text[..text.len() / 2].to_owned(),
            text.replace("rows = 8", "rows = 9"),
            text.replace("0.0004", "-0.0004"),
            text.replace("0.0004", "nan"),
        ] {
            assert_ne!(broken, text);
            scratch.write("model-key.toml", broken.as_bytes());
            assert_eq!(record.read(), None, "{broken}");
        }
        write(&record, b"graph");
        assert!(record.read().is_some_and(|kept| kept.graph.is_some()), "it is written anew");
    }

    #[test]
    fn where_the_first_folder_cannot_be_written_the_second_is() {
        let scratch = Scratch::new();
        scratch.write("file", b"");
        let (blocked, other) = (scratch.path().join("file"), scratch.path().join("cache"));
        let kept = record(&[&blocked, &other]);
        write(&kept, b"graph");
        assert!(kept.read().is_some());
        assert!(other.join("model-key.toml").is_file());
        let nowhere = record(&[&blocked]);
        assert!(nowhere.new_graph().is_none());
        assert!(!nowhere.write(Some(&MEASURED), None));
        assert_eq!(nowhere.read(), None);
    }
}
