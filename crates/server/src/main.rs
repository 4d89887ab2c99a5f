//! The `volley-server` program.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use figment::value::Value;
use tokio::signal::unix::{SignalKind, signal};
use volley_server::{Config, Server};

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
        volley-server --model-repository /srv/models --host 0.0.0.0\n  \
        VOLLEY_HTTP__PORT=9000 volley-server --config volley.toml\n\n\
        CONFIGURATION\n  \
        Defaults, then the file (./volley.toml if there is one), then environment variables named\n  \
        VOLLEY_<SECTION>__<FIELD>, then these options.\n\n\
        SIGNALS\n  \
        SIGTERM and SIGINT: stop accepting, answer everything accepted, end."
)]
struct Cli {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of models, laid out as <model>/<version>/model.onnx.
    #[arg(long, value_name = "DIR")]
    model_repository: Option<PathBuf>,
    /// Address for inference requests [default: 127.0.0.1].
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// Port for inference requests over HTTP; 0 takes a free one [default: 8000].
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Port for inference requests over gRPC; 0 takes a free one [default: 8001].
    #[arg(long, value_name = "PORT")]
    grpc_port: Option<u16>,
    /// Port for /metrics; 0 takes a free one [default: 8002].
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<u16>,
    /// Threads that run batches [default: one for each core].
    #[arg(long, value_name = "COUNT")]
    workers: Option<u32>,
    /// Form of log lines: human or json [default: human].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// What to log, by level or target, for example debug or `warn,volley_server=debug` [default: info].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

impl Cli {
    fn overrides(&self) -> Vec<(&'static str, Value)> {
        let path = self.model_repository.as_ref().map(|path| Value::from(path.display().to_string()));
        [
            ("model_repository", path),
            ("http.host", self.host.map(|host| host.to_string().into())),
            ("http.port", self.http_port.map(Value::from)),
            ("grpc.host", self.host.map(|host| host.to_string().into())),
            ("grpc.port", self.grpc_port.map(Value::from)),
            ("metrics.host", self.host.map(|host| host.to_string().into())),
            ("metrics.port", self.metrics_port.map(Value::from)),
            ("runtime.workers", self.workers.map(Value::from)),
            ("log.format", self.log_format.clone().map(Value::from)),
            ("log.filter", self.log.clone().map(Value::from)),
        ]
        .into_iter()
        .filter_map(|(path, value)| Some((path, value?)))
        .collect()
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Before logs are set up, and for people even when logs are JSON.
            eprintln!("volley-server: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), String> {
    let config = Config::read(cli.config.as_deref(), cli.overrides())?;
    config.log.start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        // Registered before the models load, so that a signal during start-up is not lost.
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
        let server = Server::start(config).map_err(|e| e.to_string())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        server.run_until(stop).await.map_err(|e| e.to_string())
    })
}
