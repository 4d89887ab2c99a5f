//! Finds the ONNX Runtime library and loads it, or says precisely what was looked for.
//!
//! Nothing is linked at build time: the library is a shared object of the machine it runs on, so one build serves CPU
//! and GPU machines. It is looked for, in this order:
//!
//! 1. the path the caller configured (only that one, when given);
//! 2. the path in the environment variable `ORT_DYLIB_PATH` (only that one, when set);
//! 3. `.volley/lib/` in the working directory, the running program's folder, or a folder above one of them (the set-up
//!    script fills it from the pinned `onnxruntime` Python wheel);
//! 4. the system's own search path (`libonnxruntime.so.1`, `libonnxruntime.so`).

use std::env;
use std::ffi::CStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::provider::Provider;

/// The folder, under a working directory or an installation, that the set-up script fills.
const SETUP_FOLDER: &str = ".volley/lib";
const ENVIRONMENT_VARIABLE: &str = "ORT_DYLIB_PATH";

/// The loaded ONNX Runtime. A process has one; clones share it.
#[derive(Debug, Clone)]
pub struct Library {
    pub(crate) environment: Environment,
    path: PathBuf,
    version: String,
}

/// The one library of this process: ONNX Runtime allows a single environment.
static LOADED: Mutex<Option<Library>> = Mutex::new(None);

impl Library {
    /// Loads ONNX Runtime, from `configured` if given, else from the first place that has it (see the module's text).
    /// A second call returns the library already loaded.
    ///
    /// # Errors
    /// [`LibraryError`] when no candidate could be loaded: it lists each with its reason and names the fix.
    pub fn load(configured: Option<&Path>) -> Result<Self, LibraryError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = loaded.as_ref() {
            return Ok(library.clone());
        }
        let mut tried = Vec::new();
        for candidate in candidates(configured) {
            match open(&candidate.path) {
                Ok(library) => {
                    tracing::info!(path = %library.path.display(), version = %library.version, "loaded ONNX Runtime");
                    *loaded = Some(library.clone());
                    return Ok(library);
                }
                Err(reason) => tried.push(Tried { candidate, reason }),
            }
        }
        Err(LibraryError { tried })
    }

    /// Where the library was loaded from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The library's version, for example `1.32.0`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether it was built with `provider`. Whether that starts on this machine shows when a model is loaded on it.
    #[must_use]
    pub fn was_built_with(&self, provider: Provider) -> bool {
        provider.missing_from_library().is_none()
    }
}

/// No usable ONNX Runtime library was found. The message lists every place looked at and the command that fixes it.
#[derive(Debug)]
pub struct LibraryError {
    tried: Vec<Tried>,
}

impl fmt::Display for LibraryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no usable ONNX Runtime library (1.24 or newer) was found; looked for:")?;
        for Tried { candidate, reason } in &self.tried {
            write!(f, "\n  {} ({}): {reason}", candidate.path.display(), candidate.origin)?;
        }
        write!(
            f,
            "\nrun `./setup` in the project's folder to put one into {SETUP_FOLDER}, or set {ENVIRONMENT_VARIABLE} to a \
             libonnxruntime.so"
        )
    }
}

impl std::error::Error for LibraryError {}

#[derive(Debug)]
struct Tried {
    candidate: Candidate,
    reason: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    path: PathBuf,
    origin: &'static str,
}

fn candidates(configured: Option<&Path>) -> Vec<Candidate> {
    if let Some(path) = configured {
        return vec![Candidate { path: path.into(), origin: "configured" }];
    }
    if let Some(path) = env::var_os(ENVIRONMENT_VARIABLE).filter(|path| !path.is_empty()) {
        return vec![Candidate { path: path.into(), origin: ENVIRONMENT_VARIABLE }];
    }
    let mut found = Vec::new();
    let folders: Vec<PathBuf> = setup_folders().collect();
    match folders.iter().find_map(|folder| newest_library_in(folder)) {
        Some(path) => found.push(Candidate { path, origin: "set-up folder" }),
        None => found.extend(
            folders.into_iter().take(1).map(|path| Candidate { path, origin: "set-up folder, and the same above" }),
        ),
    }
    for name in ["libonnxruntime.so.1", "libonnxruntime.so"] {
        found.push(Candidate { path: name.into(), origin: "system" });
    }
    found
}

fn setup_folders() -> impl Iterator<Item = PathBuf> {
    let working = env::current_dir().ok();
    let program = env::current_exe().ok().and_then(|path| Some(path.parent()?.to_path_buf()));
    let starts: Vec<PathBuf> = working.into_iter().chain(program).collect();
    let folders: Vec<PathBuf> = starts.iter().flat_map(|start| start.ancestors()).map(Path::to_path_buf).collect();
    folders.into_iter().map(|folder| folder.join(SETUP_FOLDER))
}

/// The last by name of `libonnxruntime.so*`: wheels name the file with its version.
fn newest_library_in(folder: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so")))
        .collect();
    found.sort();
    found.pop()
}

fn open(path: &Path) -> Result<Library, String> {
    let bare_name = path.components().count() == 1;
    if !bare_name && !path.exists() {
        return Err("no such file".into());
    }
    // A relative path is taken as relative to the program by the loader; users mean the working directory.
    let path = if bare_name { path.to_path_buf() } else { std::path::absolute(path).map_err(|e| e.to_string())? };
    let version = version_of(&path)?;
    let environment = ort::init_from(&path)
        .map_err(|e| e.to_string())?
        .with_name("volley")
        .with_telemetry(false)
        .with_logger(Arc::new(forward_log))
        .build()
        .map_err(|e| e.to_string())?;
    environment.set_log_level(LogLevel::Warning);
    Ok(Library { environment, path, version })
}

/// Asks the library for its version, as `ort` does but does not tell.
fn version_of(path: &Path) -> Result<String, String> {
    // SAFETY: loading runs the library's initialisers; it is the ONNX Runtime the user named, about to be loaded anyway.
    let library = unsafe { libloading::Library::new(path) }.map_err(|e| with_source(&e))?;
    // SAFETY: `OrtGetApiBase` has had this signature since the C API's first version.
    let api_base = unsafe { library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase") }
        .map_err(|_| "not ONNX Runtime: it does not export OrtGetApiBase".to_owned())?;
    // SAFETY: the base is static inside the library, and so is the NUL-terminated version string.
    let version = unsafe { CStr::from_ptr(((*api_base()).GetVersionString)()) };
    Ok(version.to_string_lossy().into_owned())
}

/// The loader keeps what went wrong in the source of its error.
fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn forward_log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    match level {
        // Said of a graph that is kept, under a key with the hardware in it.
        LogLevel::Warning if message.starts_with("Serializing optimized model with Graph Optimization level") => {
            tracing::debug!(target: "onnxruntime", category, location, "{message}");
        }
        LogLevel::Verbose | LogLevel::Info => tracing::debug!(target: "onnxruntime", category, location, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", category, location, "{message}"),
        LogLevel::Error | LogLevel::Fatal => {
            tracing::error!(target: "onnxruntime", category, location, "{message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_path_is_the_only_one_tried_and_the_error_says_what_to_do() {
        let tried: Vec<Tried> = candidates(Some(Path::new("/nowhere/libonnxruntime.so")))
            .into_iter()
            .map(|candidate| Tried { reason: open(&candidate.path).expect_err("nothing is there"), candidate })
            .collect();
        let message = LibraryError { tried }.to_string();
        assert!(message.contains("/nowhere/libonnxruntime.so (configured): no such file"), "{message}");
        assert!(message.contains("./setup") && message.contains(ENVIRONMENT_VARIABLE), "{message}");
        assert_eq!(message.matches("libonnxruntime.so (").count(), 1, "{message}");
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_with_the_loaders_reason() {
        let path = env::current_exe().expect("tests run from a file").with_file_name("not-a-library.so");
        std::fs::write(&path, b"not a library").expect("the target folder is writable");
        let reason = open(&path).expect_err("a text file is no library");
        assert!(reason.contains("not-a-library.so"), "{reason}");
    }
}
