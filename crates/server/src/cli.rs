//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use volley_server::{ConfigError, Override, Settings};

/// Serves models over the Open Inference Protocol, gathering requests into batches by priority and deadline.
///
/// Without arguments it serves the model that ships with Volley at <http://127.0.0.1:8000>, on CUDA if there is a GPU build of
/// ONNX Runtime, else on the CPU.
#[derive(Debug, Parser)]
#[command(
    name = "volley-server",
    version,
    after_help = "EXAMPLES\n  \
        volley-server\n  \
        volley-server --model-repository /srv/models --host 0.0.0.0   (see ADDRESSES)\n  \
        VOLLEY_HTTP__PORT=9000 volley-server --config volley.toml\n  \
        volley-server config check --config volley.toml --profile production\n\n\
        CONFIGURATION\n  \
        Defaults, then the profile, then the file (./volley.toml if there is one), then environment\n  \
        variables named VOLLEY_<SECTION>__<FIELD>, then these options. `volley-server config reference`\n  \
        describes all settings.\n\n\
        ADDRESSES\n  \
        Whoever is on this machine may do everything. For others to be answered, name callers\n  \
        (`volley-server key new NAME` makes a key and prints what to write), or set\n  \
        VOLLEY_SECURITY__ALLOW_ANONYMOUS=true.\n\n\
        SIGNALS\n  \
        SIGTERM and SIGINT: stop accepting, answer everything accepted, end.\n  \
        SIGHUP: read the configuration file and the certificates again (changed files are read by themselves)."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What it does instead of serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check, show or describe the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make API keys.
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Show a new key, once, and print the lines that let it in: `volley-server key new NAME >> volley.toml`.
    New {
        /// The caller's name: letters, digits, `-` and `_`.
        #[arg(value_parser = caller_name)]
        name: String,
    },
}

fn caller_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.into())
    } else {
        Err("expected letters, digits, - and _".into())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Tell everything that is wrong, and where it was said.
    Check,
    /// Print each setting's value and where it was said; secrets are not shown.
    Show,
    /// Print the reference of all settings (Markdown).
    Reference,
    /// Print the JSON Schema of the file.
    Schema,
}

/// What goes before everything else that is configured.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Configuration file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the server runs: development, staging or production [default: development].
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// Folder of models, laid out as <model>/<version>/model.onnx.
    #[arg(long, global = true, value_name = "DIR")]
    model_repository: Option<String>,
    /// Address for inference requests and metrics [default: 127.0.0.1].
    #[arg(long, global = true, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port for inference requests over HTTP; 0 takes a free one [default: 8000].
    #[arg(long, global = true, value_name = "PORT")]
    http_port: Option<String>,
    /// Port for inference requests over gRPC; 0 takes a free one [default: 8001].
    #[arg(long, global = true, value_name = "PORT")]
    grpc_port: Option<String>,
    /// Port for /metrics; 0 takes a free one [default: 8002].
    #[arg(long, global = true, value_name = "PORT")]
    metrics_port: Option<String>,
    /// Port for operators; 0 takes a free one [default: 8003].
    #[arg(long, global = true, value_name = "PORT")]
    admin_port: Option<String>,
    /// Threads that run batches [default: one for each core].
    #[arg(long, global = true, value_name = "COUNT")]
    workers: Option<String>,
    /// Form of log lines: human or json [default: human].
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// What to log, by level or target, for example debug or `warn,volley_server=debug` [default: info].
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

impl Options {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn settings(&self) -> Result<Settings, ConfigError> {
        Settings::read(self.config.as_deref(), self.profile.as_deref(), self.overrides())
    }

    /// Values stay text: what is wrong with them is told with everything else.
    fn overrides(&self) -> Vec<Override> {
        let given = [
            ("--model-repository", "model_repository", &self.model_repository),
            ("--host", "http.host", &self.host),
            ("--host", "grpc.host", &self.host),
            ("--host", "metrics.host", &self.host),
            ("--http-port", "http.port", &self.http_port),
            ("--grpc-port", "grpc.port", &self.grpc_port),
            ("--metrics-port", "metrics.port", &self.metrics_port),
            ("--admin-port", "admin.port", &self.admin_port),
            ("--workers", "runtime.workers", &self.workers),
            ("--log-format", "log.format", &self.log_format),
            ("--log", "log.filter", &self.log),
        ];
        let given = given.into_iter().filter_map(|(option, path, text)| Some((option, path, text.clone()?)));
        given.map(|(option, path, text)| Override { option, path, text }).collect()
    }
}
