//! Reports that are kept: dated, with what is needed to repeat them.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes `text` to `docs/benchmarks/<date>-<name>.md` under the day's date (UTC), with the machine, the versions and the
/// command before it. A report of the same day and name is replaced. Returns where it lies.
///
/// # Errors
/// When `date`, `uname` or `rustc` cannot be run, or the file cannot be written.
pub fn keep_report(name: &str, text: &str) -> Result<PathBuf, Box<dyn Error>> {
    let date = said("date", &["--utc", "+%Y-%m-%d"])?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks");
    fs::create_dir_all(&folder)?;
    let path = folder.canonicalize()?.join(format!("{date}-{name}.md"));
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--keep").collect();
    let text = format!(
        "# {name}, {date}\n\n\
         - command: `just bench {name} {}`\n- machine: {}\n- system: {}\n- compiler: {}\n- volley: {}, commit {}\n\n\
         ```text\n{}\n```\n",
        arguments.join(" "),
        machine()?,
        said("uname", &["-sr"])?,
        said("rustc", &["--version"])?,
        env!("CARGO_PKG_VERSION"),
        said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"])?,
        text.trim_end(),
    );
    fs::write(&path, text.replace(" `\n", "`\n"))?;
    Ok(path)
}

fn said(program: &str, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The processor's name as the kernel tells it, and how many of them this process may use.
fn machine() -> Result<String, Box<dyn Error>> {
    let cores = std::thread::available_parallelism()?;
    let told = fs::read_to_string("/proc/cpuinfo")?;
    let model = told.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    Ok(format!("{}, {cores} cores", model.unwrap_or("unknown processor")))
}
