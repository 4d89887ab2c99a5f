//! The model repository on disk, laid out as Triton lays it out.
//!
//! ```text
//! repository/
//!   cnn_lstm/                      a model, named by its folder
//!     config.toml, config.pbtxt    how it is to be served (optional)
//!     1/                           a version, named by its number
//!       model.onnx                 the variant `fp32`
//!       model.int8.onnx            the variant `int8` (any `model.<variant>.onnx`)
//!       golden.safetensors         inputs and the outputs each variant must reproduce (optional)
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{ConfigError, ModelConfig, VersionPolicy};

/// The variant a bare `model.onnx` holds.
pub const BASELINE_VARIANT: &str = "fp32";

/// All that a repository folder holds.
#[derive(Debug)]
pub struct Repository {
    /// The models, by name.
    pub models: Vec<ModelFolder>,
    /// The folders that were meant as models and cannot be read as such, by name, each with the reason.
    pub broken: Vec<(String, RepositoryError)>,
}

/// One model of a repository.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFolder {
    /// The model's name: its folder's.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// How it is to be served.
    pub config: ModelConfig,
    /// A sentence for each setting of the folder that is not used, to be logged.
    pub unused: Vec<String>,
    /// Its versions, by ascending number; at least one.
    pub versions: Vec<VersionFolder>,
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionFolder {
    /// The version's number: its folder's name.
    pub number: u64,
    /// The folder.
    pub path: PathBuf,
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
    /// Reads the layout of the folder at `path`. Folders and files that are not part of the layout are left alone, and a
    /// broken model does not hide the others.
    ///
    /// # Errors
    /// [`RepositoryError`] when the folder cannot be read or holds no model that can be.
    pub fn open(path: &Path) -> Result<Self, RepositoryError> {
        let (mut models, mut broken) = (Vec::new(), Vec::new());
        for name in names(path)? {
            match ModelFolder::read(&path.join(&name), ModelConfig::default()) {
                Ok(model) => models.push(model),
                Err(error) => broken.push((name, error)),
            }
        }
        if models.is_empty() {
            return Err(RepositoryError::Empty { path: path.into(), broken });
        }
        for (name, error) in &broken {
            tracing::warn!(model = name, %error, "not served");
        }
        Ok(Self { models, broken })
    }

    /// The names of the folders at `path` that are meant as models, in order: those that hold a numbered folder or a
    /// configuration. Whether a model can be served is for [`ModelFolder::read`] to say.
    ///
    /// # Errors
    /// [`RepositoryError`] when the folder cannot be read or holds none.
    pub fn names(path: &Path) -> Result<Vec<String>, RepositoryError> {
        let mut meant = names(path)?;
        let is_number = |folder: &PathBuf| number_of(folder).is_some();
        meant.retain(|name| {
            let folder = path.join(name);
            // One that cannot be listed is listed here, so that whoever reads it learns why.
            ["config.toml", "config.pbtxt"].iter().any(|file| folder.join(file).is_file())
                || folders(&folder).map_or(true, |versions| versions.iter().any(is_number))
        });
        if meant.is_empty() {
            return Err(RepositoryError::Empty { path: path.into(), broken: vec![] });
        }
        Ok(meant)
    }
}

impl ModelFolder {
    /// Reads the layout and the configuration of the model in the folder at `path`, as they are now. What `configured`
    /// says goes before what the folder says.
    ///
    /// # Errors
    /// [`RepositoryError`] when a folder cannot be listed, the configuration is no good, there is no version, or one is
    /// there twice.
    pub fn read(path: &Path, configured: ModelConfig) -> Result<Self, RepositoryError> {
        let (of_folder, unused) = ModelConfig::read(path).map_err(RepositoryError::Config)?;
        let config = configured.or(of_folder);
        config.check().map_err(|reason| RepositoryError::Contradiction { path: path.into(), reason })?;
        let baseline = config.default_model_filename.as_deref().unwrap_or("model.onnx");
        let (versions, mut without) = versions(path, baseline)?;
        without.sort();
        if versions.is_empty() {
            return Err(RepositoryError::NoVersion { expected: path.join("<version number>").join(baseline), without });
        }
        for folder in without {
            tracing::warn!(folder = %folder.display(), "not served: it holds no {baseline}");
        }
        Ok(Self { name: file_name(path).unwrap_or_default().to_owned(), path: path.into(), config, unused, versions })
    }

    /// The version with the highest number: the one served when a request names none.
    ///
    /// # Panics
    /// Never for a value made by [`ModelFolder::read`].
    #[must_use]
    pub fn latest(&self) -> &VersionFolder {
        self.versions.last().expect("a model folder has at least one version")
    }

    /// The versions that the model's policy serves, by ascending number.
    ///
    /// # Errors
    /// [`RepositoryError`] when the policy names a version that is not there.
    pub fn served(&self) -> Result<Vec<&VersionFolder>, RepositoryError> {
        let policy = self.config.version_policy.clone().unwrap_or_default();
        match policy {
            VersionPolicy::All => Ok(self.versions.iter().collect()),
            VersionPolicy::Latest(count) => {
                Ok(self.versions.iter().skip(self.versions.len().saturating_sub(count.get())).collect())
            }
            VersionPolicy::Specific(numbers) => {
                if let Some(&missing) = numbers.iter().find(|&&number| self.versions.iter().all(|v| v.number != number))
                {
                    let there = self.versions.iter().map(|version| version.number).collect();
                    return Err(RepositoryError::MissingVersion { path: self.path.clone(), missing, there });
                }
                Ok(self.versions.iter().filter(|version| numbers.contains(&version.number)).collect())
            }
        }
    }
}

impl VersionFolder {
    /// Reads the layout of one version's folder, whose baseline variant is in the file `baseline` (`model.onnx` unless
    /// the model's configuration says otherwise).
    ///
    /// # Errors
    /// [`RepositoryError`] when the folder cannot be listed, its name is no number, or it holds no model file.
    pub fn read(path: &Path, baseline: &str) -> Result<Self, RepositoryError> {
        let nothing = || {
            let without = if number_of(path).is_some() { vec![path.into()] } else { vec![] };
            RepositoryError::NoVersion { expected: path.with_file_name("<version number>").join(baseline), without }
        };
        let number = number_of(path).ok_or_else(nothing)?;
        let mut variants: Vec<_> = entries(path)?.into_iter().filter_map(|file| variant(file, baseline)).collect();
        variants.sort_by(|a, b| a.name.cmp(&b.name));
        if variants.is_empty() {
            return Err(nothing());
        }
        let golden = path.join("golden.safetensors");
        let golden = match golden.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Ok(_) if golden.is_file() => Some(golden),
            // Without a word, nothing would be checked.
            _ => {
                let source = io::Error::new(io::ErrorKind::InvalidInput, "expected a file, or a link to one");
                return Err(RepositoryError::Unreadable { path: golden, source });
            }
        };
        Ok(Self { number, path: path.into(), variants, golden })
    }
}

fn number_of(version: &Path) -> Option<u64> {
    file_name(version)?.parse().ok()
}

/// The versions of the model, and folders that are named as if they were some.
fn versions(model: &Path, baseline: &str) -> Result<(Vec<VersionFolder>, Vec<PathBuf>), RepositoryError> {
    let (mut versions, mut others) = (Vec::new(), Vec::new());
    for folder in folders(model)? {
        match VersionFolder::read(&folder, baseline) {
            Ok(version) => versions.push(version),
            Err(RepositoryError::NoVersion { without, .. }) => others.extend(without),
            Err(error) => return Err(error),
        }
    }
    versions.sort_by(|a, b| (a.number, &a.path).cmp(&(b.number, &b.path)));
    match versions.windows(2).find(|pair| pair[0].number == pair[1].number) {
        Some([a, b]) => Err(RepositoryError::SameVersion { paths: [a.path.clone(), b.path.clone()] }),
        _ => Ok((versions, others)),
    }
}

fn variant(path: PathBuf, baseline: &str) -> Option<VariantFile> {
    let name = file_name(&path)?;
    let stem = baseline.strip_suffix(".onnx")?;
    let middle = name.strip_prefix(stem)?.strip_suffix(".onnx")?;
    let name = match middle.strip_prefix('.') {
        Some(variant) if !variant.is_empty() => variant.to_owned(),
        None if middle.is_empty() => BASELINE_VARIANT.to_owned(),
        _ => return None,
    };
    path.is_file().then_some(VariantFile { name, path })
}

fn names(path: &Path) -> Result<Vec<String>, RepositoryError> {
    let mut names = Vec::new();
    for folder in folders(path)? {
        match file_name(&folder) {
            Some(name) => names.push(name.to_owned()),
            None => tracing::warn!(?folder, "not served: no request can name it, as its name is not UTF-8"),
        }
    }
    names.sort();
    Ok(names)
}

fn folders(path: &Path) -> Result<Vec<PathBuf>, RepositoryError> {
    let hidden = |path: &Path| file_name(path).is_some_and(|name| name.starts_with('.'));
    Ok(entries(path)?.into_iter().filter(|path| path.is_dir() && !hidden(path)).collect())
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, RepositoryError> {
    let unreadable = |source| RepositoryError::Unreadable { path: path.into(), source };
    fs::read_dir(path).map_err(unreadable)?.map(|entry| entry.map(|e| e.path()).map_err(unreadable)).collect()
}

/// `None` where the name is not UTF-8: nothing of the layout has such a name.
fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// Why a repository, or a model of it, cannot be read.
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
        /// Folders that might have been meant as models, and what is wrong with them.
        broken: Vec<(String, RepositoryError)>,
    },
    /// A model's folder holds no version.
    NoVersion {
        /// Where a version's file would be.
        expected: PathBuf,
        /// Folders that are named as versions, and hold no such file.
        without: Vec<PathBuf>,
    },
    /// Two folders of a model are the same version, for example `1` and `01`.
    SameVersion {
        /// The folders.
        paths: [PathBuf; 2],
    },
    /// A version that the policy names is not there.
    MissingVersion {
        /// The model's folder.
        path: PathBuf,
        /// The version named.
        missing: u64,
        /// Those that are there.
        there: Vec<u64>,
    },
    /// The model's configuration cannot be used.
    Config(ConfigError),
    /// It cannot be used with what goes before it.
    Contradiction {
        /// The model's folder.
        path: PathBuf,
        /// The field, what is wrong with it, and what was expected.
        reason: String,
    },
}

impl fmt::Display for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, .. } => write!(f, "model repository: cannot read {}", path.display()),
            Self::Empty { path, broken } => {
                write!(
                    f,
                    "no model in {}: expected at least one {}",
                    path.display(),
                    path.join("<model>/<version number>/model.onnx").display()
                )?;
                broken.iter().try_for_each(|(name, error)| write!(f, "; {name}: {error}"))
            }
            Self::NoVersion { expected, without } => {
                write!(f, "no version; expected at least one {}", expected.display())?;
                let names: Vec<&str> = without.iter().filter_map(|folder| file_name(folder)).collect();
                if names.is_empty() { Ok(()) } else { write!(f, "; there is none in {}", names.join(", ")) }
            }
            Self::SameVersion { paths: [a, b] } => {
                write!(f, "{} and {} are the same version; expected one of them", a.display(), b.display())
            }
            Self::MissingVersion { path, missing, there } => {
                let there: Vec<_> = there.iter().map(u64::to_string).collect();
                let path = path.display();
                write!(f, "version_policy names version {missing} of {path}, which has {}", there.join(", "))
            }
            Self::Config(error) => error.fmt(f),
            Self::Contradiction { path, reason } => write!(f, "{}: {reason}", path.display()),
        }
    }
}

impl std::error::Error for RepositoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Config(error) => error.source(),
            Self::Empty { .. }
            | Self::NoVersion { .. }
            | Self::SameVersion { .. }
            | Self::MissingVersion { .. }
            | Self::Contradiction { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::scratch::Scratch;

    fn repository(files: &[&str]) -> Scratch {
        let scratch = Scratch::new();
        for file in files {
            scratch.write(file, b"");
        }
        scratch
    }

    fn numbers(versions: &[&VersionFolder]) -> Vec<u64> {
        versions.iter().map(|version| version.number).collect()
    }

    #[cfg(unix)]
    #[test]
    fn a_golden_file_that_is_none_is_not_passed_over() {
        let root = repository(&["net/1/model.onnx"]);
        let golden = root.path().join("net/1/golden.safetensors");
        std::os::unix::fs::symlink("nowhere", &golden).expect("a link");
        let error = VersionFolder::read(&root.path().join("net/1"), "model.onnx").expect_err("it leads nowhere");
        assert!(error.to_string().contains("golden.safetensors"), "{error}");
        fs::remove_file(&golden).expect("it is there");
        let version = VersionFolder::read(&root.path().join("net/1"), "model.onnx").expect("nothing is wrong");
        assert_eq!(version.golden, None);
    }

    #[test]
    fn versions_sort_by_number_and_variants_take_the_middle_of_the_file_name() {
        let root = repository(&[
            "net/10/model.onnx",
            "net/10/model.int8.onnx",
            "net/10/models.onnx",
            "net/9/model.onnx",
            "net/9/golden.safetensors",
            "net/draft/model.onnx",
            "net/11/notes.txt",
            ".git/1/model.onnx",
        ]);
        let repository = Repository::open(root.path()).expect("two versions are there");
        assert_eq!(repository.models.len(), 1);
        let model = &repository.models[0];
        assert_eq!(numbers(&model.versions.iter().collect::<Vec<_>>()), [9, 10]);
        let names: Vec<_> = model.latest().variants.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["fp32", "int8"]);
        assert!(model.versions[0].golden.is_some() && model.latest().golden.is_none());
    }

    #[test]
    fn an_empty_repository_says_what_it_expected_and_which_folders_fell_short() {
        let unfinished = repository(&["net/2/config.json", "net/1/net.onnx"]);
        let error =
            ModelFolder::read(&unfinished.path().join("net"), ModelConfig::default()).expect_err("no model file");
        let message = error.to_string();
        assert!(message.ends_with("<version number>/model.onnx; there is none in 1, 2"), "{message}");
        let root = repository(&["net/model.onnx"]);
        let error = Repository::open(root.path()).expect_err("no version folder");
        let message = error.to_string();
        assert!(message.contains("<version number>/model.onnx") && message.contains("; net: no version"), "{message}");
        assert!(Repository::names(root.path()).is_err(), "nothing in it is meant as a model");
        assert!(Repository::open(&root.path().join("missing")).is_err());
    }

    #[test]
    fn a_broken_model_is_reported_by_name_and_hides_no_other() {
        let root = repository(&["good/1/model.onnx", "bad/1/model.onnx", "docs/notes.txt"]);
        root.write("bad/config.toml", b"max_batch = 0");
        let repository = Repository::open(root.path()).expect("one is good");
        assert_eq!(repository.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["good"]);
        let (name, error) = &repository.broken[0];
        assert!(name == "bad" && error.to_string().contains("config.toml:1:13"), "{error}");
        assert_eq!(Repository::names(root.path()).expect("two are meant"), ["bad", "good"]);
    }

    #[test]
    fn two_folders_of_one_version_are_refused_by_name() {
        let root = repository(&["net/1/model.onnx", "net/01/model.onnx", "net/2/model.onnx"]);
        let error = Repository::open(root.path()).expect_err("which is version 1?").to_string();
        assert!(error.contains("net/01 and ") && error.contains("net/1 are the same version"), "{error}");
        let root = repository(&["net/01/model.onnx", "net/1/notes.txt"]);
        assert!(Repository::open(root.path()).is_ok(), "one of them holds no model");
    }

    #[test]
    #[cfg(unix)]
    fn folders_and_files_that_nobody_can_name_hide_no_other() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let root = repository(&["net/1/model.onnx"]);
        let unnamed = |before: &[u8]| OsStr::from_bytes(&[before, &[0xff]].concat()).to_owned();
        fs::create_dir_all(root.path().join(unnamed(b"net")).join("1")).expect("it can be made");
        fs::create_dir_all(root.path().join("net").join(unnamed(b"2"))).expect("it can be made");
        let version = root.path().join("net/1");
        let mut file = unnamed(b"model.");
        file.push(".onnx");
        fs::copy(version.join("model.onnx"), version.join(file)).expect("it can be made");
        assert_eq!(Repository::names(root.path()).expect("one can be named"), ["net"]);
        let models = Repository::open(root.path()).expect("one can be named").models;
        assert_eq!(models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["net"]);
        assert_eq!(numbers(&models[0].versions.iter().collect::<Vec<_>>()), [1]);
        assert_eq!(models[0].latest().variants.len(), 1);
    }

    #[test]
    fn the_policy_decides_which_versions_are_served() {
        let root = repository(&["net/1/model.onnx", "net/2/model.onnx", "net/7/model.onnx"]);
        let served = |policy| {
            let config = ModelConfig { version_policy: policy, ..Default::default() };
            let model = ModelFolder::read(&root.path().join("net"), config).expect("three versions");
            model.served().map(|versions| numbers(&versions)).map_err(|error| error.to_string())
        };
        let latest = |count| Some(VersionPolicy::Latest(NonZeroUsize::new(count).expect("not zero")));
        assert_eq!(served(None), Ok(vec![7]));
        assert_eq!((served(latest(2)), served(latest(9))), (Ok(vec![2, 7]), Ok(vec![1, 2, 7])));
        assert_eq!(served(Some(VersionPolicy::All)), Ok(vec![1, 2, 7]));
        assert_eq!(served(Some(VersionPolicy::Specific(vec![7, 1]))), Ok(vec![1, 7]));
        let error = served(Some(VersionPolicy::Specific(vec![1, 3]))).expect_err("there is no version 3");
        assert!(error.contains("version 3") && error.ends_with("which has 1, 2, 7"), "{error}");
    }

    #[test]
    fn another_file_name_names_the_variants_too() {
        let root = repository(&["net/1/net.onnx", "net/1/net.int8.onnx", "net/1/model.onnx"]);
        root.write("net/config.pbtxt", b"default_model_filename: \"net.onnx\"");
        let model = ModelFolder::read(&root.path().join("net"), ModelConfig::default()).expect("its file is there");
        let files: Vec<_> = model.latest().variants.iter().map(|v| (v.name.as_str(), file_name(&v.path))).collect();
        assert_eq!(files, [("fp32", Some("net.onnx")), ("int8", Some("net.int8.onnx"))]);
        let configured: ModelConfig = toml::from_str("default_model_filename = \"model.onnx\"").expect("one field");
        let model = ModelFolder::read(&root.path().join("net"), configured).expect("that file is there too");
        assert_eq!(file_name(&model.latest().variants[0].path), Some("model.onnx"));
    }

    #[test]
    fn what_goes_before_a_folders_settings_is_held_against_the_same_rules() {
        let root = repository(&["net/1/model.onnx"]);
        root.write("net/config.toml", b"batch_sizes = [1, 8]\noperator_libraries = [\"of_folder.so\"]");
        let read = |configured: &str| {
            let configured = toml::from_str(configured).expect("the types are right");
            ModelFolder::read(&root.path().join("net"), configured).map_err(|error| error.to_string())
        };
        for (configured, expected) in [
            ("max_batch = 4", "net: batch_sizes: the largest is 8; expected it to be max_batch, 4"),
            ("variants = []", "net: variants: empty"),
            ("default_model_filename = \"../m.onnx\"", "net: default_model_filename: `../m.onnx`; expected"),
        ] {
            let error = read(configured).expect_err(configured);
            assert!(error.contains(expected), "{error}");
        }
        let libraries =
            |configured| read(configured).expect("it is good").config.operator_libraries.expect("it is said");
        assert_eq!(libraries("variants = [\"fp32\"]"), [root.path().join("net/of_folder.so")]);
        assert_eq!(libraries("operator_libraries = [\"own.so\"]"), [Path::new("own.so")], "whose path it is");
    }
}
