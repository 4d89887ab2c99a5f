//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use volley_validate::load::Rate;
use volley_validate::protocol::{CacheUse, Encoding, Priority, RequestOptions};

/// Puts load on a live inference server, measures, and says whether it keeps its promise.
///
/// The server speaks the Open Inference Protocol V2 over HTTP. What the model takes and gives is read
/// from its metadata; inputs are pseudo-random, and every reply is checked for status, shapes and sizes.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 when every check passed, 1 when one did not, 2 when the run could not be made.",
    after_long_help = "\
Examples:
  Does the server keep its promise under 200 independent requests a second?
    volley-validate sla --rate 200 --duration 60s

  The same for another server, model and profile, with the result as JSON on the last line:
    volley-validate --url http://10.0.0.7:8000 --model ranker sla --profile strict.toml --json -

  How much can it do, and what does a request cost it? (On one machine, pin both to cores of their own.)
    taskset -c 1 volley-validate saturate --connections 32 --server-pid 4242

  Yesterday's traffic, one send time in seconds a line:
    volley-validate sla --trace monday.txt

Exit status: 0 when every check passed, 1 when one did not, 2 when the run could not be made."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Open loop: judges latency, errors and throughput under requests that arrive on their own schedule.
    Sla(Sla),
    /// Closed loop: keeps connections busy and finds the most the server can do, and at what cost.
    Saturate(Saturate),
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The server's address.
    #[arg(long, global = true, default_value = "http://127.0.0.1:8000")]
    pub(crate) url: String,
    /// The model's name.
    #[arg(long, global = true, default_value = "cnn_lstm")]
    pub(crate) model: String,
    /// The model's version; the server picks one when none is given.
    #[arg(long, global = true)]
    pub(crate) model_version: Option<String>,
    /// The API key, where the server asks for one. Better said by the variable than here, where others see it.
    #[arg(long, global = true, value_name = "KEY", env = "VALIDATE_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// TOML file with other thresholds than the default promise.
    ///
    /// What it does not name keeps its default. One line of it may be
    /// `p99_latency_ms = { target = 10, alert = 15, critical = 30 }`.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// Write the report as one line of JSON to a file, or to standard output with "-" (the table then goes
    /// to standard error).
    #[arg(long, global = true, value_name = "FILE|-")]
    pub(crate) json: Option<PathBuf>,
    /// Also report processor time and memory of this process, the server's, on this machine.
    #[arg(long, global = true, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// How tensors travel.
    #[arg(long, global = true, value_enum, default_value_t = EncodingArgument::Binary)]
    encoding: EncodingArgument,
    /// The request parameter "priority": critical, high, normal, low, or a whole number.
    #[arg(long, global = true)]
    priority: Option<Priority>,
    /// The request parameter "timeout": the end-to-end deadline asked of the server, such as 80ms.
    #[arg(long, global = true, value_name = "TIME", value_parser = time)]
    deadline: Option<Duration>,
    /// Whether the server may answer from its cache.
    #[arg(long, global = true, value_enum, default_value_t = CacheArgument::Off)]
    cache: CacheArgument,
    /// How many different inputs to take in turn.
    #[arg(long, global = true, value_name = "N", default_value = "1024")]
    distinct: NonZeroUsize,
    /// Seed of inputs and of Poisson arrivals: the same seed repeats a run.
    #[arg(long, global = true, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Give up on a reply after this time, at most 60s.
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = patience)]
    pub(crate) patience: Duration,
    /// Load before anything is measured.
    #[arg(long, global = true, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub(crate) warmup: Duration,
}

impl Common {
    pub(crate) fn request_options(&self) -> RequestOptions {
        RequestOptions {
            encoding: match self.encoding {
                EncodingArgument::Binary => Encoding::Binary,
                EncodingArgument::Json => Encoding::Json,
            },
            priority: self.priority.clone(),
            deadline: self.deadline,
            cache: match self.cache {
                CacheArgument::On => CacheUse::Allow,
                CacheArgument::Off => CacheUse::Bypass,
            },
            distinct: self.distinct,
            seed: self.seed,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Sla {
    /// Mean requests per second.
    #[arg(long, default_value = "200", conflicts_with = "trace", allow_negative_numbers = true)]
    pub(crate) rate: Rate,
    /// How requests arrive.
    #[arg(long, value_enum, default_value_t = ArrivalsArgument::Poisson, conflicts_with = "trace")]
    pub(crate) arrivals: ArrivalsArgument,
    /// Replay these send times instead: seconds from the start, one a line. The warm-up is their first part.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Length of the measured window: 60s, 500ms, 2m, 1h or plain seconds. Default: 60s, or a whole trace.
    #[arg(long, value_name = "TIME", value_parser = window)]
    pub(crate) duration: Option<Duration>,
    /// Most connections at a time; beyond it requests wait, and the wait counts.
    #[arg(long, value_name = "N", default_value = "256")]
    pub(crate) max_connections: NonZeroUsize,
}

#[derive(Debug, Args)]
pub(crate) struct Saturate {
    /// Connections kept busy.
    #[arg(long, value_name = "N", default_value = "32")]
    pub(crate) connections: NonZeroUsize,
    /// Length of the measured window: 60s, 500ms, 2m, 1h or plain seconds.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = window)]
    pub(crate) duration: Duration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ArrivalsArgument {
    /// Independent users.
    Poisson,
    /// A metronome.
    Constant,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum EncodingArgument {
    /// Raw values behind a JSON header.
    Binary,
    /// Numbers in JSON.
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CacheArgument {
    /// Leave it to the server.
    On,
    /// Ask that every request be computed.
    Off,
}

fn time(given: &str) -> Result<Duration, String> {
    let number_end = given.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(given.len());
    let (number, unit) = given.split_at(number_end);
    let seconds_per_unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unit '{unit}' is none of us, ms, s, m and h")),
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * seconds_per_unit).ok())
        .ok_or_else(|| "write a time such as 60s, 500ms, 2m, 1h or plain seconds".to_owned())
}

fn window(given: &str) -> Result<Duration, String> {
    let window = time(given)?;
    if window.is_zero() {
        return Err("the window must be longer than nothing".to_owned());
    }
    if window > LONGEST_RUN {
        return Err("the window must not be longer than 720h".to_owned());
    }
    Ok(window)
}

fn patience(given: &str) -> Result<Duration, String> {
    let patience = time(given)?;
    if patience.is_zero() || patience > Duration::from_secs(60) {
        return Err("the patience must be above zero and at most 60s".to_owned());
    }
    Ok(patience)
}

/// Keeps sums of times far from overflow.
const LONGEST_RUN: Duration = Duration::from_hours(720);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_units() {
        let cases = [("60", 60.0), ("60s", 60.0), ("500ms", 0.5), ("250us", 0.000_25), ("1.5m", 90.0), ("1h", 3600.0)];
        for (given, seconds) in cases {
            assert_eq!(time(given), Ok(Duration::from_secs_f64(seconds)), "{given}");
        }
        for given in ["", "s", "-1", "1d", "NaN", "1e400", "5 s"] {
            assert!(time(given).is_err(), "{given}");
        }
        assert!(window("0").is_err());
        assert!(patience("61s").is_err());
    }

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
