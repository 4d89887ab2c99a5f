//! What a model's folder says of how the model is to be served: `config.toml`, and what is used of Triton's
//! `config.pbtxt`.

use std::fmt;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::provider::ProviderPreference;
use crate::tensor::{DataType, TensorSpec};
use crate::{toml_error, triton};

/// What a model's folder, or the server's configuration, says of a model. Every field is optional; absent is not said.
///
/// # Examples
/// ```
/// use volley_gpu_runtime::ModelConfig;
/// let of_server: ModelConfig = toml::from_str("max_batch = 16")?;
/// let of_folder: ModelConfig = toml::from_str("max_batch = 64\nvariants = [\"int8\"]")?;
/// let config = of_server.or(of_folder);
/// assert_eq!((config.max_batch.unwrap().get(), config.variants.unwrap()), (16, vec!["int8".to_owned()]));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The variants that are loaded; the first is the default. Absent: the fastest that passes its golden check.
    pub variants: Option<Vec<String>>,
    /// Rows of the largest batch.
    pub max_batch: Option<NonZeroUsize>,
    /// Rows for which a batch is not held back to grow further; with 1, requests are not computed together. Absent: as many as
    /// measured best, or 1 where a row is answered otherwise among others than alone.
    pub full_batch: Option<NonZeroUsize>,
    /// The sizes that batches have, each prepared before the model is ready; the last is the largest batch, whether
    /// `max_batch` says so too or nothing. Absent: any, and powers of two and the largest are prepared.
    pub batch_sizes: Option<Vec<NonZeroUsize>>,
    /// Largest absolute difference from the golden outputs at which the model is still taken to be right.
    pub golden_tolerance: Option<f32>,
    /// Whether NaN and infinite inputs reach the model.
    pub allow_non_finite: Option<bool>,
    /// Whether a server may keep results and answer with them again. Absent: it may, unless a row is not answered alike when it
    /// is asked again, or `full_batch` has requests computed together that change each other's answers.
    pub cache: Option<bool>,
    /// Names under which results can be invalidated together with those of other models.
    pub cache_tags: Option<Vec<String>>,
    /// A safetensors file of inputs that a server computes in the background once the model is loaded, so that its cache
    /// begins with their results: each input under its name, `[N, ...row shape]`. Each row is a request of its own for the
    /// default variant of the latest version; the file's order is kept. Relative paths start where those of
    /// `operator_libraries` do.
    pub warm_inputs: Option<PathBuf>,
    /// Execution providers in order of preference: `tensorrt`, `cuda`, `cpu`.
    pub providers: Option<Vec<String>>,
    /// Which versions are served. Absent: the latest.
    pub version_policy: Option<VersionPolicy>,
    /// The baseline variant's file in a version's folder, `model.onnx` if absent. Of `net.onnx` the variant `int8` is in
    /// `net.int8.onnx`.
    pub default_model_filename: Option<String>,
    /// Libraries of custom operators that the model needs. Relative paths start at the model's folder in the files there,
    /// and at the working directory elsewhere.
    pub operator_libraries: Option<Vec<PathBuf>>,
    /// The variants that answer together.
    pub ensemble: Option<EnsembleConfig>,
    /// The inputs that the model file must have, whatever their order. Absent: those it has.
    pub inputs: Option<Vec<DeclaredTensor>>,
    /// The outputs that the model file must have; it may have others.
    pub outputs: Option<Vec<DeclaredTensor>>,
}

/// Which of a model's versions are served. In `config.toml`: `"all"`, `{ latest = 2 }` or `{ specific = [1, 3] }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum VersionPolicy {
    /// Every version.
    All,
    /// So many, those with the highest numbers.
    Latest(NonZeroUsize),
    /// Those of these numbers.
    Specific(Vec<u64>),
}

impl Default for VersionPolicy {
    /// The latest.
    fn default() -> Self {
        Self::Latest(NonZeroUsize::MIN)
    }
}

/// Variants that answer together: the mean of their outputs, and the spread as the uncertainty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EnsembleConfig {
    /// The variants' names.
    pub members: Vec<String>,
}

/// What a configuration says of an input or output of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DeclaredTensor {
    /// The tensor's name.
    pub name: String,
    /// Its element type, for example `FP32`.
    #[serde(with = "data_type")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub data_type: DataType,
    /// The shape of one row, without the batch axis; -1 is any length.
    pub row_shape: Vec<i64>,
}

impl DeclaredTensor {
    /// Whether `spec` is what is declared.
    pub(crate) fn allows(&self, spec: &TensorSpec) -> bool {
        let same = |(&declared, &axis): (&i64, &usize)| declared == -1 || usize::try_from(declared) == Ok(axis);
        self.name == spec.name
            && self.data_type == spec.dtype
            && self.row_shape.len() == spec.row_shape.len()
            && self.row_shape.iter().zip(&spec.row_shape).all(same)
    }
}

impl fmt::Display for DeclaredTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[N", self.name, self.data_type)?;
        for axis in &self.row_shape {
            write!(f, ",{axis}")?;
        }
        f.write_str("]")
    }
}

mod data_type {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::tensor::DataType;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(dtype: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(dtype.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataType, D::Error> {
        let name = String::deserialize(deserializer)?;
        DataType::from_name(&name)
            .ok_or_else(|| D::Error::custom(format!("`{name}` is no element type; expected one such as FP32 or INT64")))
    }
}

impl ModelConfig {
    /// Reads `config.toml` and `config.pbtxt` of the model's folder; the former wins, field by field, and neither need be
    /// there. With it comes a sentence for each setting that was understood, or may be meant well, and is not used.
    ///
    /// # Errors
    /// [`ConfigError`], with the place in the file, when a file cannot be read, is malformed, or asks for what would
    /// change the answers and cannot be done.
    pub fn read(folder: &Path) -> Result<(Self, Vec<String>), ConfigError> {
        let mut config = Self::default();
        let mut unused = Vec::new();
        let path = folder.join("config.toml");
        if let Some(text) = read_if_there(&path)? {
            let fail = |text: String| ConfigError { path: path.clone(), reason: ConfigReason::Malformed(text) };
            config = toml_error::read(&text).map_err(fail)?;
            config.check().map_err(|message| {
                let field = message.split([':', '.']).next().unwrap_or_default();
                fail(toml_error::at_field(&text, field, &message))
            })?;
        }
        let path = folder.join("config.pbtxt");
        if let Some(text) = read_if_there(&path)? {
            let fail = |text: String| ConfigError { path: path.clone(), reason: ConfigReason::Malformed(text) };
            let model = folder.file_name().unwrap_or_default().to_string_lossy();
            let of_triton =
                triton::read(&text, &model).map_err(|error| fail(format!("{}: {}", error.at, error.text)))?;
            of_triton.config.check().map_err(fail)?;
            unused.extend(of_triton.unused.into_iter().map(|text| format!("{}:{text}", path.display())));
            config = config.or(of_triton.config);
        }
        for library in config.operator_libraries.iter_mut().flatten() {
            *library = folder.join(&*library);
        }
        config.warm_inputs = config.warm_inputs.map(|file| folder.join(file));
        Ok((config, unused))
    }

    /// This, and where it says nothing, what `fallback` says.
    #[must_use]
    pub fn or(self, fallback: Self) -> Self {
        Self {
            variants: self.variants.or(fallback.variants),
            max_batch: self.max_batch.or(fallback.max_batch),
            full_batch: self.full_batch.or(fallback.full_batch),
            batch_sizes: self.batch_sizes.or(fallback.batch_sizes),
            golden_tolerance: self.golden_tolerance.or(fallback.golden_tolerance),
            allow_non_finite: self.allow_non_finite.or(fallback.allow_non_finite),
            cache: self.cache.or(fallback.cache),
            cache_tags: self.cache_tags.or(fallback.cache_tags),
            warm_inputs: self.warm_inputs.or(fallback.warm_inputs),
            providers: self.providers.or(fallback.providers),
            version_policy: self.version_policy.or(fallback.version_policy),
            default_model_filename: self.default_model_filename.or(fallback.default_model_filename),
            operator_libraries: self.operator_libraries.or(fallback.operator_libraries),
            ensemble: self.ensemble.or(fallback.ensemble),
            inputs: self.inputs.or(fallback.inputs),
            outputs: self.outputs.or(fallback.outputs),
        }
    }

    /// Whether the settings make sense, each and together: what the types cannot hold.
    ///
    /// # Errors
    /// A sentence that begins with the field.
    pub fn check(&self) -> Result<(), String> {
        if self.variants.as_ref().is_some_and(Vec::is_empty) {
            return Err("variants: empty; expected at least one name, or nothing for the fastest".into());
        }
        if self.golden_tolerance.is_some_and(|tolerance| !(tolerance >= 0.0 && tolerance.is_finite())) {
            return Err("golden_tolerance: expected a finite number of at least 0".into());
        }
        if let Some(sizes) = &self.batch_sizes
            && (sizes.is_empty() || sizes.windows(2).any(|pair| pair[0] >= pair[1]))
        {
            return Err("batch_sizes: expected at least one size, in ascending order".into());
        }
        let largest = self.batch_sizes.iter().flatten().max();
        if let (Some(max), Some(largest)) = (self.max_batch, largest)
            && max != *largest
        {
            return Err(format!("batch_sizes: the largest is {largest}; expected it to be max_batch, {max}"));
        }
        if let (Some(full), Some(max)) = (self.full_batch, self.max_batch.or(largest.copied()))
            && full > max
        {
            return Err(format!("full_batch: {full}; expected at most the largest batch, {max}"));
        }
        if let Some(names) = &self.providers {
            ProviderPreference::of_names(names, false, 0).map_err(|text| format!("providers: {text}"))?;
        }
        if self.version_policy == Some(VersionPolicy::Specific(vec![])) {
            return Err("version_policy: no version is named; expected at least one".into());
        }
        if let Some(name) = &self.default_model_filename {
            // A model serves nothing from outside its folder.
            let stem = name.strip_suffix(".onnx").filter(|stem| !stem.is_empty() && !name.contains(['/', '\\']));
            if stem.is_none() {
                return Err(format!("default_model_filename: `{name}`; expected a file's name that ends in .onnx"));
            }
        }
        if let Some(EnsembleConfig { members }) = &self.ensemble {
            if members.len() < 2 {
                return Err("ensemble.members: expected at least two variants".into());
            }
            if let Some(twice) = members.iter().enumerate().find(|(i, name)| members[..*i].contains(name)) {
                return Err(format!("ensemble.members: `{}` is there twice; expected variants that differ", twice.1));
            }
        }
        Ok(())
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>, ConfigError> {
    let read = || match fs::metadata(path)?.is_file() {
        true => fs::read_to_string(path),
        // A pipe would be waited for.
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")),
    };
    match read() {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConfigError { path: path.into(), reason: ConfigReason::Unreadable(error) }),
    }
}

/// A model's configuration cannot be used. The message names the file, the place and what was expected there.
#[derive(Debug)]
pub struct ConfigError {
    path: PathBuf,
    reason: ConfigReason,
}

#[derive(Debug)]
enum ConfigReason {
    Unreadable(io::Error),
    Malformed(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.reason {
            ConfigReason::Unreadable(_) => write!(f, "{path}: cannot be read"),
            ConfigReason::Malformed(text) => write!(f, "{path}:{text}"),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            ConfigReason::Unreadable(source) => Some(source),
            ConfigReason::Malformed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::scratch::Scratch;

    fn read(files: &[(&str, &str)]) -> Result<(ModelConfig, Vec<String>), String> {
        let scratch = Scratch::new();
        for (name, text) in files {
            scratch.write(&format!("net/{name}"), text.as_bytes());
        }
        ModelConfig::read(&scratch.path().join("net"))
            .map_err(|error| error.to_string().replace(&format!("{}/", scratch.path().display()), ""))
    }

    #[test]
    fn the_example_in_the_readme_is_read() {
        let (_, example) = include_str!("../README.md").split_once("```toml\n").expect("an example");
        let (example, _) = example.split_once("```").expect("its end");
        let (config, unused) = read(&[("config.toml", example)]).expect("good");
        assert_eq!(config.max_batch.map(NonZeroUsize::get), Some(32));
        assert_eq!(config.inputs.map(|inputs| inputs.len()), Some(1));
        assert_eq!(unused, [""; 0]);
    }

    #[test]
    fn what_config_toml_says_wins_and_what_it_does_not_say_is_tritons() {
        let of_triton = ("config.pbtxt", "max_batch_size: 8 version_policy { all {} }");
        let (config, unused) =
            read(&[of_triton, ("config.toml", "max_batch = 4\nproviders = [\"cpu\"]")]).expect("good");
        assert_eq!(config.max_batch.map(NonZeroUsize::get), Some(4));
        assert_eq!(config.version_policy, Some(VersionPolicy::All));
        assert_eq!(config.providers, Some(vec!["cpu".to_owned()]));
        assert_eq!(unused, [""; 0]);
        assert_eq!(read(&[]).expect("nothing is said").0, ModelConfig::default());
    }

    #[test]
    fn every_field_can_be_said_in_toml() {
        let (config, _) = read(&[(
            "config.toml",
            "variants = [\"int8\", \"fp32\"]\nmax_batch = 32\nfull_batch = 8\nbatch_sizes = [1, 8, 32]\n\
             golden_tolerance = 1e-4\nallow_non_finite = true\nproviders = [\"cuda\", \"cpu\"]\n\
             version_policy = { latest = 2 }\ndefault_model_filename = \"net.onnx\"\noperator_libraries = [\"ops.so\"]\n\
             warm_inputs = \"hot.safetensors\"\nensemble.members = [\"a\", \"b\"]\n\
             [[inputs]]\nname = \"x\"\ndata_type = \"FP32\"\nrow_shape = [50, -1]\n\
             [[outputs]]\nname = \"y\"\ndata_type = \"INT64\"\nrow_shape = []\n",
        )])
        .expect("good");
        assert_eq!(config.version_policy, Some(VersionPolicy::Latest(NonZeroUsize::new(2).expect("not zero"))));
        assert!(config.operator_libraries.as_ref().expect("said")[0].ends_with("net/ops.so"));
        assert!(config.warm_inputs.as_ref().expect("said").ends_with("net/hot.safetensors"));
        assert_eq!(config.inputs.as_ref().expect("said")[0].to_string(), "x FP32[N,50,-1]");
        let text = toml::to_string(&config).expect("a configuration can be written");
        assert_eq!(toml::from_str::<ModelConfig>(&text).expect("and read again"), config);
    }

    #[test]
    fn a_mistake_is_named_with_its_place_and_what_was_expected() {
        for (text, expected) in [
            ("max_batch = 0", "net/config.toml:1:13: "),
            ("a = 1", "net/config.toml:1:1: unknown field `a`"),
            ("max_batch = 8\nmax_batch =", "net/config.toml:2:"),
            (
                "max_batch = 8\nfull_batch = 9",
                "net/config.toml:2:1: full_batch: 9; expected at most the largest batch, 8",
            ),
            ("batch_sizes = [1, 8]\nfull_batch = 9", "2:1: full_batch: 9; expected at most the largest batch, 8"),
            (
                "max_batch = 9\nbatch_sizes = [1, 8]",
                "2:1: batch_sizes: the largest is 8; expected it to be max_batch, 9",
            ),
            (
                "max_batch = 4\nbatch_sizes = [1, 8]",
                "2:1: batch_sizes: the largest is 8; expected it to be max_batch, 4",
            ),
            ("variants = []", "1:1: variants: empty; expected at least one name"),
            ("batch_sizes = [8, 4]", "batch_sizes: expected at least one size, in ascending order"),
            ("golden_tolerance = nan", "golden_tolerance: expected a finite number"),
            ("providers = [\"gpu\"]", "providers: `gpu` is none; expected tensorrt, cuda or cpu"),
            ("version_policy = { specific = [] }", "version_policy: no version is named"),
            ("default_model_filename = \"../m.onnx\"", "`../m.onnx`; expected a file's name that ends in .onnx"),
            ("ensemble.members = [\"a\", \"b\", \"a\"]", "1:1: ensemble.members: `a` is there twice"),
            ("[ensemble]\nmembers = [\"a\"]", "1:1: ensemble.members: expected at least two variants"),
            ("[[inputs]]\nname = \"x\"\ndata_type = \"FP31\"\nrow_shape = []", "`FP31` is no element type"),
        ] {
            let error = read(&[("config.toml", text)]).expect_err(text);
            assert!(error.contains(expected), "{error}");
        }
        let error = read(&[("config.pbtxt", "name: \"net\"\nmax_batch_size: -1")]).expect_err("negative");
        assert!(error.starts_with("net/config.pbtxt:2:1: max_batch_size is `-1`"), "{error}");
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        for name in ["config.toml", "config.pbtxt"] {
            let scratch = Scratch::new();
            let pipe = scratch.path().join(name);
            assert!(Command::new("mkfifo").arg(&pipe).status().expect("there is mkfifo").success());
            let error = ModelConfig::read(scratch.path()).expect_err("a pipe");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
