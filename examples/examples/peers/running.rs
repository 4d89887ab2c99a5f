//! A server that runs, with all the processes it has started.

use std::error::Error;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::SERVER_CORE;
use super::peer::{Peer, Wait};

/// A server in a session of its own, on the server's core; ended with all its processes when dropped.
pub(crate) struct Running {
    child: Child,
    pub address: SocketAddr,
    pub started: Instant,
    workspace: PathBuf,
}

impl Running {
    pub(crate) fn start(peer: Peer, variant: &str, model: &Path, wait: Wait) -> Result<Self, Box<dyn Error>> {
        // Short: Ray puts sockets below it, whose paths are limited.
        let workspace = std::env::temp_dir().join(format!("peer-{}", std::process::id()));
        let _ = fs::remove_dir_all(&workspace);
        fs::create_dir_all(&workspace)?;
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let server = peer.command(variant, model, wait, address.port(), &workspace)?;
        let log = File::create(workspace.join("log"))?;
        let mut command = Command::new("taskset");
        command
            .args(["--cpu-list", &SERVER_CORE.to_string(), "setsid"])
            .arg(server.get_program())
            .args(server.get_args());
        for (name, value) in server.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.current_dir(&workspace).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Instant::now();
        Ok(Self { child: command.spawn()?, address, started, workspace })
    }

    /// Fails with the server's last words if it has ended.
    pub(crate) fn check_alive(&mut self) -> Result<(), Box<dyn Error>> {
        if self.child.try_wait()?.is_none() {
            return Ok(());
        }
        let log = fs::read_to_string(self.workspace.join("log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(10).collect();
        Err(format!("the server ended:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n")).into())
    }

    /// Memory of all the server's processes, what they share counted once among them.
    pub(crate) fn resident_bytes(&self) -> Result<u64, Box<dyn Error>> {
        let mut kilobytes = 0;
        for process in self.processes()? {
            // One that ended meanwhile has none.
            let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
            let share = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or("0 kB");
            kilobytes += share.trim().trim_end_matches(" kB").parse::<u64>()?;
        }
        Ok(kilobytes * 1024)
    }

    /// Those of the session: `setsid` became the server, and its id is the session's.
    fn processes(&self) -> Result<Vec<u32>, Box<dyn Error>> {
        let session = self.child.id().to_string();
        let mut processes = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
            // Behind the name in parentheses: state, parent, group, session.
            let field = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(3));
            if field == Some(&session) {
                processes.push(process);
            }
        }
        Ok(processes)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Some come back to life by a parent that notices; so until there is none.
        for _ in 0..50 {
            let processes = self.processes().unwrap_or_default();
            let alive: Vec<String> = processes.iter().map(ToString::to_string).collect();
            let _ = self.child.try_wait();
            if alive.is_empty() {
                break;
            }
            let _ = Command::new("kill").arg("-KILL").args(alive).stderr(Stdio::null()).status();
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.workspace);
    }
}
