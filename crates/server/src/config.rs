//! Configuration: built-in defaults, then a TOML file, then environment variables, then the command line.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::Value;
use serde::{Deserialize, Serialize};
use volley_gpu_runtime::ModelConfig;

/// Environment variables are named `VOLLEY_<SECTION>__<FIELD>`, for example `VOLLEY_HTTP__PORT`.
const ENVIRONMENT_PREFIX: &str = "VOLLEY_";

/// Everything the server can be told. Durations are written with their unit: `"500us"`, `"2ms"`, `"1s"`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of models, laid out as Triton lays it out. Unset: the models that ship with Volley.
    pub model_repository: Option<PathBuf>,
    /// Settings of single models, by name. They go before those of the model's own `config.toml`. Relative paths in them
    /// start at the working directory.
    pub models: BTreeMap<String, ModelConfig>,
    /// The listener that answers inference requests.
    pub http: HttpConfig,
    /// The listener that answers `/metrics`.
    pub metrics: MetricsConfig,
    /// How models are run.
    pub runtime: RuntimeConfig,
    /// How requests wait and are gathered.
    pub scheduler: SchedulerConfig,
    /// The result cache.
    pub cache: CacheConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// How the server leaves.
    pub shutdown: ShutdownConfig,
}

/// The inference listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address to listen on. There is no authentication yet, so the default is this machine only.
    pub host: IpAddr,
    /// Port; 0 takes a free one, which the log names.
    pub port: u16,
    /// Threads that read requests and write responses. Unset: one for each eight cores.
    pub threads: Option<NonZeroUsize>,
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
}

/// The metrics listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port; 0 takes a free one, which the log names.
    pub port: u16,
}

/// How models are run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// The ONNX Runtime library. Unset: looked for in the environment, the set-up folder and the system.
    pub library: Option<PathBuf>,
    /// Execution providers, most wanted first: `tensorrt`, `cuda`, `cpu`.
    pub providers: Vec<String>,
    /// Refuse to start on anything but the first provider.
    pub require: bool,
    /// Index of the GPU.
    pub device: i32,
    /// Threads that run batches, each with its own session. Unset: one for each core.
    pub workers: Option<NonZeroUsize>,
    /// Threads within one operator. One is best unless there are fewer workers than cores.
    pub intra_op_threads: NonZeroUsize,
    /// Threads that run operators which do not depend on each other. More than one helps graphs with wide branches only.
    pub inter_op_threads: NonZeroUsize,
    /// Whether ONNX Runtime's threads spin while they wait for work. It costs a core each and gains microseconds.
    pub spinning: bool,
    /// Processors that workers are kept on, in turn. Empty: wherever the system puts them.
    pub cpu_affinity: Vec<usize>,
    /// Bytes of GPU memory that ONNX Runtime may take for each session. Unset: what there is.
    pub gpu_memory_limit: Option<usize>,
    /// Longest time a batch may run. Then it is interrupted, and half of this time later its worker is replaced; either
    /// way its requests are tried once more.
    #[serde(with = "humantime_serde")]
    pub run_limit: Duration,
}

/// How requests wait and are gathered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerConfig {
    /// Requests each priority lane holds before it refuses more.
    pub lane_capacity: NonZeroUsize,
    /// Longest time a request is held back for the sake of a fuller batch.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// A request rises by one lane each time it has waited this long.
    #[serde(with = "humantime_serde")]
    pub aging_interval: Duration,
}

/// The result cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Whether results are kept at all.
    pub enabled: bool,
    /// Bytes kept in memory.
    pub capacity_bytes: u64,
    /// How long a result is kept. Results of one model file never change, so this bounds memory, not error.
    #[serde(with = "humantime_serde")]
    pub time_to_live: Duration,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `human` or `json`.
    pub format: LogFormat,
    /// Levels by target, for example `info` or `warn,volley_server=debug`.
    pub filter: String,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// How the server leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// Connections that are idle when the server is told to leave may still bring a request for this long. Each is
    /// answered, and told to close. Never more than half of `grace`.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// Longest time to finish what was accepted.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 8000, threads: None, max_body_bytes: 16 << 20 }
    }
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 8002 }
    }
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            library: None,
            providers: vec!["cuda".into(), "cpu".into()],
            require: false,
            device: 0,
            workers: None,
            intra_op_threads: nonzero(1),
            inter_op_threads: nonzero(1),
            spinning: false,
            cpu_affinity: Vec::new(),
            gpu_memory_limit: None,
            run_limit: Duration::from_secs(2),
        }
    }
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            lane_capacity: nonzero(4096),
            max_wait: Duration::from_millis(2),
            aging_interval: Duration::from_millis(50),
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { enabled: true, capacity_bytes: 64 << 20, time_to_live: Duration::from_secs(300) }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Human, filter: "info".into() }
    }
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { linger: Duration::from_millis(250), grace: Duration::from_secs(25) }
    }
}

impl LogConfig {
    /// Logs from now on as configured, to standard error.
    ///
    /// # Errors
    /// A sentence, when the filter cannot be read or the process logs already.
    pub fn start(&self) -> Result<(), String> {
        let format = match self.format {
            LogFormat::Human => volley_telemetry::logs::LogFormat::Human,
            LogFormat::Json => volley_telemetry::logs::LogFormat::Json,
        };
        volley_telemetry::logs::init(format, &self.filter).map_err(|error| format!("log.filter: {error}"))
    }
}

fn nonzero(value: usize) -> NonZeroUsize {
    NonZeroUsize::new(value).expect("the defaults are not zero")
}

impl Config {
    /// Reads the configuration: defaults, then `file` (or `volley.toml` in the working directory, if it is there), then
    /// the environment, then `overrides`: paths such as `http.port` with the value the command line gave.
    ///
    /// # Errors
    /// A report with a line for each value that is wrong: where it came from, its path, and what was expected.
    pub fn read(
        file: Option<&Path>,
        overrides: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Result<Self, String> {
        if let Some(file) = file
            && !file.is_file()
        {
            return Err(format!("the configuration file {} does not exist", file.display()));
        }
        let file = file.unwrap_or(Path::new("volley.toml"));
        let layers = Figment::from(Serialized::defaults(Self::default()))
            .merge(Toml::file(file))
            .merge(Env::prefixed(ENVIRONMENT_PREFIX).filter(|name| !is_service_link(name.as_str())).split("__"));
        let figment = overrides.into_iter().fold(layers, |layers, (path, value)| layers.merge((path, value)));
        let config: Self = figment.extract().map_err(|errors| {
            let lines: Vec<String> = errors.into_iter().map(|error| format!("  {error}")).collect();
            format!("the configuration is wrong:\n{}", lines.join("\n"))
        })?;
        if config.runtime.run_limit.is_zero() {
            return Err("the configuration is wrong:\n  runtime.run_limit: 0s; expected a time that a batch can run in, such as \"2s\"".into());
        }
        Ok(config)
    }
}

/// Whether an environment variable, named without its prefix, is one that Kubernetes sets in every pod for a service whose
/// name begins with `volley`: `VOLLEY_SERVICE_HOST`, `VOLLEY_PORT=tcp://...`, `VOLLEY_PORT_8000_TCP_ADDR` and the like.
fn is_service_link(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let is = |word: &str| name == word || name.ends_with(&format!("_{word}"));
    let begins = |word: &str| name.starts_with(word) || name.contains(&format!("_{word}"));
    if is("PORT") && !is("SERVICE_PORT") {
        // Also what a field's name looks like with one underscore too few: only the value tells.
        return std::env::var(format!("{ENVIRONMENT_PREFIX}{name}")).is_ok_and(|value| value.contains("://"));
    }
    let numbered = begins("PORT_") && ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains(protocol));
    is("SERVICE_HOST") || is("SERVICE_PORT") || begins("SERVICE_PORT_") || numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_are_told_from_settings() {
        for link in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP",
            "PORT_8000_TCP",
            "PORT_8000_TCP_ADDR",
            "SERVER_SERVICE_HOST",
            "SERVER_SERVICE_PORT_GRPC",
            "SERVER_PORT_8001_TCP_PROTO",
        ] {
            assert!(is_service_link(link), "{link}");
        }
        for setting in
            ["HTTP__PORT", "HTTP_PORT", "PORT", "METRICS__PORT", "MODEL_REPOSITORY", "SERVICE", "LOG__FILTER"]
        {
            assert!(!is_service_link(setting), "{setting}");
        }
    }

    #[test]
    fn defaults_serve_without_a_file() {
        assert_eq!(Config::read(None, []), Ok(Config::default()));
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_durations_carry_units() {
        let file = std::env::temp_dir().join(format!("volley-config-{}.toml", std::process::id()));
        std::fs::write(
            &file,
            "[http]\nport = 1\n[scheduler]\nmax_wait = \"500us\"\n[models.net]\nvariants = [\"fp32\"]\n",
        )
        .expect("the temporary folder is writable");
        let config = Config::read(Some(&file), [("http.port", 7.into())]).expect("it is right");
        assert_eq!((config.http.port, config.scheduler.max_wait), (7, Duration::from_micros(500)));
        assert_eq!(config.models["net"].variants, Some(vec!["fp32".to_owned()]));

        std::fs::write(&file, "[http]\nprot = 1\n").expect("the temporary folder is writable");
        let message = Config::read(Some(&file), []).expect_err("a typing error");
        assert!(message.contains("prot") && message.contains("port") && message.contains("volley-config"), "{message}");
        std::fs::remove_file(file).expect("it was made above");
    }

    #[test]
    fn no_time_to_run_in_is_refused() {
        let message = Config::read(None, [("runtime.run_limit", "0ms".into())]).expect_err("no batch could be run");
        assert!(message.contains("runtime.run_limit: 0s; expected"), "{message}");
    }

    #[test]
    fn a_file_that_is_named_must_exist() {
        let message = Config::read(Some(Path::new("/nowhere/volley.toml")), []).expect_err("it does not exist");
        assert!(message.contains("/nowhere/volley.toml"), "{message}");
    }
}
