//! `volley-validate`: the command line over the library of the same name.

mod cli;

use std::error::Error;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cli::{ArrivalsArgument, Cli, Command, Common, Saturate, Sla};
use volley_validate::load::{Arrivals, ClosedLoop, OpenLoop, Progress, Trace};
use volley_validate::profile::Profile;
use volley_validate::report::{ProgressLine, Report};
use volley_validate::runs;
use volley_validate::subject::{Subject, SubjectError};
use volley_validate::target::Target;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(report) if report.passed() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            // Standard error may be closed; the exit status says it all the same.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<Report, Box<dyn Error>> {
    let profile = read_profile(&cli.common)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        match &cli.command {
            Command::Sla(sla) => {
                let open = open_loop(sla, &cli.common)?;
                let subject = reach(&cli.common).await?;
                let report = runs::sla(&subject, open, &profile, show_progress()).await;
                report.map_err(Box::<dyn Error>::from)
            }
            Command::Saturate(saturate) => {
                let closed = closed_loop(saturate, &cli.common);
                let subject = reach(&cli.common).await?;
                let report = runs::saturate(&subject, closed, &profile, show_progress()).await;
                report.map_err(Box::<dyn Error>::from)
            }
        }
    })?;
    write_report(&report, cli.common.json.as_deref())?;
    Ok(report)
}

fn read_profile(common: &Common) -> Result<Profile, Box<dyn Error>> {
    match &common.profile {
        None => Ok(Profile::default()),
        Some(path) => {
            Profile::from_toml(&read_file(path)?).map_err(|error| format!("{}: {error}", path.display()).into())
        }
    }
}

fn open_loop(sla: &Sla, common: &Common) -> Result<OpenLoop, Box<dyn Error>> {
    let (arrivals, natural_duration) = match &sla.trace {
        Some(path) => {
            let trace: Trace = read_file(path)?.parse().map_err(|error| format!("{}: {error}", path.display()))?;
            let rest = trace.span().saturating_sub(common.warmup);
            if rest.is_zero() {
                let (path, span, warmup) = (path.display(), trace.span(), common.warmup);
                return Err(format!(
                    "{path}: the trace lasts {span:.1?}, within the warm-up of {warmup:?}: use a shorter --warmup"
                )
                .into());
            }
            (Arrivals::Trace(trace), rest)
        }
        None => {
            let arrivals = match sla.arrivals {
                ArrivalsArgument::Constant => Arrivals::Constant { rate: sla.rate },
                ArrivalsArgument::Poisson => Arrivals::Poisson { rate: sla.rate, seed: common.seed },
            };
            (arrivals, Duration::from_secs(60))
        }
    };
    Ok(OpenLoop {
        arrivals,
        warmup: common.warmup,
        duration: sla.duration.unwrap_or(natural_duration),
        max_connections: sla.max_connections,
    })
}

fn closed_loop(saturate: &Saturate, common: &Common) -> ClosedLoop {
    ClosedLoop { connections: saturate.connections, warmup: common.warmup, duration: saturate.duration }
}

async fn reach(common: &Common) -> Result<Subject, Box<dyn Error>> {
    let mut target = Target::new(&common.url, &common.model)?;
    if let Some(version) = &common.model_version {
        target = target.with_version(version)?;
    }
    if let Some(key) = &common.key {
        target = target.with_key(key)?;
    }
    let subject = Subject::reach(target, &common.request_options())
        .await
        .map_err(|error| with_remedy(error, common))?
        .with_patience(common.patience);
    Ok(match common.server_pid {
        Some(pid) => subject.with_process(pid)?,
        None => subject,
    })
}

fn with_remedy(error: SubjectError, common: &Common) -> Box<dyn Error> {
    if error.is_unreachable() {
        return format!(
            "{error}\nstart the server first (`volley-server`, or `just serve`), or say where it is with --url \
             (now {})",
            common.url
        )
        .into();
    }
    error.into()
}

/// On a terminal one line that changes, elsewhere a line a second.
fn show_progress() -> impl FnMut(&Progress) {
    let mut line = ProgressLine::default();
    let rewrite = io::stderr().is_terminal();
    move |progress| {
        let text = line.next(progress);
        // Progress that cannot be shown is no reason to stop measuring.
        let _ = if rewrite { write!(io::stderr(), "\r\x1b[K{text}") } else { writeln!(io::stderr(), "{text}") };
    }
}

fn write_report(report: &Report, json: Option<&Path>) -> Result<(), Box<dyn Error>> {
    if io::stderr().is_terminal() {
        writeln!(io::stderr(), "\r\x1b[K")?;
    }
    match json {
        None => write!(io::stdout(), "{report}")?,
        Some(path) if path == Path::new("-") => {
            write!(io::stderr(), "{report}")?;
            writeln!(io::stdout(), "{}", report.json())?;
        }
        Some(path) => {
            write!(io::stdout(), "{report}")?;
            fs::write(path, format!("{}\n", report.json()))
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<String, Box<dyn Error>> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}
