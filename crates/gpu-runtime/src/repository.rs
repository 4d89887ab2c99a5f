//! The model repository on disk, laid out as Triton lays it out.
//!
//! ```text
//! repository/
//!   cnn_lstm/                      a model, named by its folder
//!     1/                           a version, named by its number
//!       model.onnx                 the variant `fp32`
//!       model.int8.onnx            the variant `int8` (any `model.<variant>.onnx`)
//!       golden.safetensors         inputs and the outputs each variant must reproduce (optional)
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The variant a bare `model.onnx` holds.
pub const BASELINE_VARIANT: &str = "fp32";

/// All that a repository folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The models, by name.
    pub models: Vec<ModelFolder>,
}

/// One model of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFolder {
    /// The model's name: its folder's.
    pub name: String,
    /// Its versions, by ascending number; at least one.
    pub versions: Vec<VersionFolder>,
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionFolder {
    /// The version's number: its folder's name.
    pub number: u64,
    /// The variants it offers, by name; at least one.
    pub variants: Vec<VariantFile>,
    /// The file of golden inputs and outputs, if there is one.
    pub golden: Option<PathBuf>,
}

/// One variant (a precision, usually) of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantFile {
    /// `fp32` for `model.onnx`, else the middle of `model.<variant>.onnx`.
    pub name: String,
    /// The ONNX file.
    pub path: PathBuf,
}

impl Repository {
    /// Reads the layout of the folder at `path`. Folders and files that are not part of the layout are left alone.
    ///
    /// # Errors
    /// [`RepositoryError`] when the folder cannot be read or holds no model.
    pub fn open(path: &Path) -> Result<Self, RepositoryError> {
        let mut models = Vec::new();
        let mut without_version = Vec::new();
        for folder in folders(path)? {
            let name = file_name(&folder);
            let versions = versions(&folder)?;
            if versions.is_empty() {
                without_version.push(name);
            } else {
                models.push(ModelFolder { name, versions });
            }
        }
        if models.is_empty() {
            return Err(RepositoryError::Empty { path: path.into(), without_version });
        }
        for name in without_version {
            tracing::warn!(model = name, "folder holds no `<version>/model.onnx`; it is not served");
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { models })
    }
}

impl ModelFolder {
    /// The version with the highest number: the one served when a request names none.
    ///
    /// # Panics
    /// Never for a value made by [`Repository::open`].
    #[must_use]
    pub fn latest(&self) -> &VersionFolder {
        self.versions.last().expect("a model folder has at least one version")
    }
}

fn versions(model: &Path) -> Result<Vec<VersionFolder>, RepositoryError> {
    let mut versions = Vec::new();
    for folder in folders(model)? {
        let Ok(number) = file_name(&folder).parse::<u64>() else { continue };
        let mut variants: Vec<VariantFile> = entries(&folder)?.into_iter().filter_map(variant).collect();
        variants.sort_by(|a, b| a.name.cmp(&b.name));
        if !variants.is_empty() {
            let golden = Some(folder.join("golden.safetensors")).filter(|path| path.is_file());
            versions.push(VersionFolder { number, variants, golden });
        }
    }
    versions.sort_by_key(|version| version.number);
    Ok(versions)
}

fn variant(path: PathBuf) -> Option<VariantFile> {
    let name = file_name(&path);
    let middle = name.strip_prefix("model.")?;
    let name = match middle.strip_suffix(".onnx") {
        Some(variant) if !variant.is_empty() => variant.to_owned(),
        None if middle == "onnx" => BASELINE_VARIANT.to_owned(),
        _ => return None,
    };
    path.is_file().then_some(VariantFile { name, path })
}

fn folders(path: &Path) -> Result<Vec<PathBuf>, RepositoryError> {
    Ok(entries(path)?.into_iter().filter(|path| path.is_dir() && !file_name(path).starts_with('.')).collect())
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, RepositoryError> {
    let unreadable = |source| RepositoryError::Unreadable { path: path.into(), source };
    fs::read_dir(path).map_err(unreadable)?.map(|entry| entry.map(|e| e.path()).map_err(unreadable)).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Why a repository could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum RepositoryError {
    /// A folder could not be listed.
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Not one model was found.
    Empty {
        /// The repository's folder.
        path: PathBuf,
        /// Folders that might have been meant as models.
        without_version: Vec<String>,
    },
}

impl fmt::Display for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, .. } => write!(f, "cannot read the model repository folder {}", path.display()),
            Self::Empty { path, without_version } => {
                write!(
                    f,
                    "no model in {}: expected at least one {}",
                    path.display(),
                    path.join("<model>/<version number>/model.onnx").display()
                )?;
                if !without_version.is_empty() {
                    write!(f, "; folders without such a file: {}", without_version.join(", "))?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for RepositoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Empty { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("volley-repository-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("the temporary folder is writable");
        path
    }

    fn touch(root: &Path, file: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("writable");
        fs::write(path, b"").expect("writable");
    }

    #[test]
    fn versions_sort_by_number_and_variants_take_the_middle_of_the_file_name() {
        let root = scratch("layout");
        for file in [
            "net/10/model.onnx",
            "net/10/model.int8.onnx",
            "net/9/model.onnx",
            "net/9/golden.safetensors",
            "net/draft/model.onnx",
            "net/11/notes.txt",
            "net/config.pbtxt",
            ".git/1/model.onnx",
        ] {
            touch(&root, file);
        }
        let repository = Repository::open(&root).expect("two versions are there");
        assert_eq!(repository.models.len(), 1);
        let model = &repository.models[0];
        assert_eq!(model.versions.iter().map(|v| v.number).collect::<Vec<_>>(), [9, 10]);
        let names: Vec<_> = model.latest().variants.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["fp32", "int8"]);
        assert!(model.versions[0].golden.is_some() && model.latest().golden.is_none());
        fs::remove_dir_all(root).expect("made above");
    }

    #[test]
    fn an_empty_repository_says_what_it_expected_and_which_folders_fell_short() {
        let root = scratch("empty");
        touch(&root, "net/model.onnx");
        let error = Repository::open(&root).expect_err("no version folder");
        let message = error.to_string();
        assert!(message.contains("<version number>/model.onnx") && message.contains("net"), "{message}");
        assert!(Repository::open(&root.join("missing")).is_err());
        fs::remove_dir_all(root).expect("made above");
    }
}
