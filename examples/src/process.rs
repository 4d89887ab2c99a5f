//! Programs that a benchmark starts, each on a core of its own.

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where cargo put the programs of this build: the folder above the examples.
///
/// # Errors
/// When the running program's path is not known.
pub fn programs() -> Result<PathBuf, Box<dyn Error>> {
    let this = std::env::current_exe()?;
    Ok(this.parent().and_then(Path::parent).ok_or("the program lies in no folder")?.to_path_buf())
}

/// Keeps this process, with the threads it starts from now on, on `core`.
///
/// # Errors
/// When `taskset` cannot be run or the core is not there.
pub fn pin_this_process(core: usize) -> Result<(), Box<dyn Error>> {
    let done = Command::new("taskset")
        .args(["--cpu-list", "--pid", &core.to_string(), &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status()?;
    if done.success() { Ok(()) } else { Err(format!("taskset could not pin to core {core}").into()) }
}

/// A command pinned to `core`.
pub(crate) fn pinned(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(program).stdin(Stdio::null());
    command
}

/// A `volley-server` on free ports; ended when dropped.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    /// Where inference requests go.
    pub http: SocketAddr,
    /// Where gRPC calls go.
    pub grpc: SocketAddr,
    /// Where `/metrics` is.
    pub metrics: SocketAddr,
    /// Where operators are answered.
    pub admin: SocketAddr,
    /// From the start of the process to its word that it is ready.
    pub ready_after: Duration,
}

impl ServerProcess {
    /// Starts the server on `core` (any, if `None`) with these settings in its environment, and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started or ends early; the message has its last words.
    pub fn start(core: Option<usize>, settings: &[(&str, &str)]) -> Result<Self, Box<dyn Error>> {
        let program = programs()?.join("volley-server");
        let mut command = core.map_or_else(|| Command::new(&program), |core| pinned(core, &program));
        command.args(["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--admin-port", "0"]);
        command.args(["--log-format", "json"]);
        let started = Instant::now();
        let mut child = command.envs(settings.iter().copied()).stderr(Stdio::piped()).spawn()?;
        let mut log = BufReader::new(child.stderr.take().ok_or("stderr is piped")?);
        let mut seen = String::new();
        let ready = loop {
            let mut line = String::new();
            if log.read_line(&mut line)? == 0 {
                return Err(format!("the server ended before it was ready:\n{seen}").into());
            }
            match serde_json::from_str::<Value>(&line) {
                Ok(entry) if entry["message"] == "ready" => break entry,
                _ => seen += &line,
            }
        };
        let ready_after = started.elapsed();
        let address = |field: &str| ready[field].as_str().ok_or("the ready line names its addresses");
        let (http, grpc) = (address("http")?.parse()?, address("grpc")?.parse()?);
        let (metrics, admin) = (address("metrics")?.parse()?, address("admin")?.parse()?);
        // Read to its end, so that the server never waits for room in the pipe.
        std::thread::spawn(move || std::io::copy(&mut log.by_ref(), &mut std::io::sink()));
        Ok(Self { child, http, grpc, metrics, admin, ready_after })
    }

    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells the server to leave, and returns when that was.
    ///
    /// # Errors
    /// When `kill` cannot be run or the server has ended already.
    pub fn terminate(&self) -> Result<Instant, Box<dyn Error>> {
        let told = Instant::now();
        let done = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        if done.success() { Ok(told) } else { Err("the server could not be told to leave".into()) }
    }

    /// Waits until the server, told to leave, has ended.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn wait(&mut self) -> Result<(), Box<dyn Error>> {
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the server ended with {status}").into()) }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
