//! The `volley-server` program.

mod cli;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command, ConfigCommand, KeyCommand};
use tokio::signal::unix::{SignalKind, signal};
use volley_server::{NewKey, Server, Settings, json_schema, reference, show, tune_allocator};

fn main() -> ExitCode {
    tune_allocator();
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
    let settings = || cli.options.settings().map_err(|error| error.to_string());
    match &cli.command {
        None => serve(settings()?),
        Some(Command::Key(KeyCommand::New { name })) => new_key(name),
        Some(Command::Config(ConfigCommand::Check)) => {
            settings().and_then(|settings| print(&format!("right, for the profile {}\n", settings.profile().name())))
        }
        Some(Command::Config(ConfigCommand::Show)) => print(&show(&settings()?)),
        Some(Command::Config(ConfigCommand::Reference)) => print(&reference()),
        Some(Command::Config(ConfigCommand::Schema)) => print(&json_schema()),
    }
}

/// Tells whoever asks a key, and prints what to write into the configuration for it, where the key itself has no place.
fn new_key(name: &str) -> Result<(), String> {
    let key = NewKey::make().map_err(|error| format!("no random numbers: {error}"))?;
    let how = "Shown this once. Callers send it as `Authorization: Bearer KEY` or `x-api-key: KEY`:";
    writeln!(io::stderr(), "{how}\n{}\n", key.secret()).map_err(|error| error.to_string())?;
    // What they are appended to may not end its last line.
    print(&format!(
        "\n[security.callers.{name}]\nkeys = [\"{}\"]\nscopes = [\"infer\"]   # \"observe\" and \"admin\" as well, if it may\n",
        key.digest()
    ))
}

fn print(text: &str) -> Result<(), String> {
    match io::stdout().write_all(text.as_bytes()) {
        // Who reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| error.to_string()),
    }
}

fn serve(settings: Settings) -> Result<(), String> {
    let log = settings.config().log.start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let served = runtime.block_on(async {
        // Registered before the models load, so that a signal during start-up is not lost.
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
        let mut hangup = signal(SignalKind::hangup()).map_err(|e| e.to_string())?;
        let server = Server::start(settings, Some(log)).map_err(|e| e.to_string())?;
        let reread = server.reread();
        let rereading = async {
            while hangup.recv().await.is_some() {
                reread.by_signal().await;
            }
        };
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::select! {
            left = server.run_until(stop) => left.map_err(|e| e.to_string()),
            () = rereading => unreachable!("signals come for as long as the process lives"),
        }
    });
    // An update that still loads a model is not waited for.
    runtime.shutdown_background();
    served
}
