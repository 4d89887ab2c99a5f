//! Redis as people run it: one node, a primary under Sentinel's watch, a cluster of six.

use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for a node, a cluster or a new primary.
const PATIENCE: Duration = Duration::from_secs(30);

/// An address that nobody listens at, nor at the one that a cluster's node has beside it, ten thousand further. Below the
/// ports that the system gives to outgoing connections, of which there are many here: one could take it meanwhile.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(21_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free(port) && is_free(port + 10_000) {
            return (Ipv4Addr::LOCALHOST, port).into();
        }
    }
}

/// A `redis-server` with a folder of its own; ended when dropped.
pub(crate) struct Node {
    pub address: SocketAddr,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Child,
}

impl Node {
    /// Starts a node on a free port with these further arguments, and waits until it answers.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Box<dyn Error>> {
        let address = free_address();
        let folder = std::env::temp_dir().join(format!("volley-redis-{}-{}", std::process::id(), address.port()));
        fs::create_dir_all(&folder)?;
        let mut all = vec!["--port".to_owned(), address.port().to_string()];
        all.extend(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"].map(str::to_owned));
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let child = spawn(&folder, &all)?;
        let node = Self { address, folder, arguments: all, child };
        node.wait_for("PING", "PONG")?;
        Ok(node)
    }

    /// A sentinel that watches `primary`.
    fn sentinel(primary: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let address = free_address();
        let folder = std::env::temp_dir().join(format!("volley-redis-{}-{}", std::process::id(), address.port()));
        fs::create_dir_all(&folder)?;
        let file = folder.join("sentinel.conf");
        fs::write(
            &file,
            format!(
                "port {}\nbind 127.0.0.1\nsentinel monitor volley 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds volley 1000\nsentinel failover-timeout volley 5000\n",
                address.port(),
                primary.port(),
            ),
        )?;
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        let child = spawn(&folder, &arguments)?;
        let node = Self { address, folder, arguments, child };
        node.wait_for("PING", "PONG")?;
        Ok(node)
    }

    /// What the node answers to a command in words.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<String, Box<dyn Error>> {
        cli(self.address, words)
    }

    fn wait_for(&self, command: &str, sign: &str) -> Result<(), Box<dyn Error>> {
        let words: Vec<&str> = command.split(' ').collect();
        wait_until(&format!("redis at {} to say {sign}", self.address), || {
            TcpStream::connect(self.address).is_ok() && self.ask(&words).is_ok_and(|answer| answer.contains(sign))
        })
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty, on the port it had.
    pub(crate) fn restart(&mut self) -> Result<(), Box<dyn Error>> {
        self.child = spawn(&self.folder, &self.arguments)?;
        self.wait_for("PING", "PONG")
    }

    /// Sends its process a signal, as `kill -NAME` does.
    pub(crate) fn signal(&self, name: &str) -> Result<(), Box<dyn Error>> {
        let done = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status()?;
        if done.success() { Ok(()) } else { Err(format!("no {name} could be sent to redis").into()) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A primary, a replica, and three sentinels.
pub(crate) struct Watched {
    pub sentinels: Vec<Node>,
    pub primary: Node,
    _replica: Node,
}

impl Watched {
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        let primary = Node::start(&[])?;
        let port = primary.address.port().to_string();
        let replica = Node::start(&["--replicaof", "127.0.0.1", &port])?;
        primary.wait_for("INFO replication", "state=online")?;
        let sentinels = (0..3).map(|_| Node::sentinel(primary.address)).collect::<Result<Vec<_>, _>>()?;
        for sentinel in &sentinels {
            wait_until("sentinels to find each other and the replica", || {
                sentinel.ask(&["SENTINEL", "MASTER", "volley"]).is_ok_and(|text| {
                    field(&text, "num-other-sentinels") == Some("2") && field(&text, "num-slaves") == Some("1")
                })
            })?;
        }
        Ok(Self { sentinels, primary, _replica: replica })
    }
}

/// Three primaries with a replica each.
pub(crate) struct Cluster {
    pub nodes: Vec<Node>,
}

impl Cluster {
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        let arguments =
            ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-replica-validity-factor", "0"];
        let nodes = (0..6).map(|_| Node::start(&arguments)).collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
        let mut command = Command::new("redis-cli");
        command.args(["--cluster", "create"]).args(&addresses).args(["--cluster-replicas", "1", "--cluster-yes"]);
        let output = command.output()?;
        if !output.status.success() {
            return Err(format!("no cluster came about: {}", String::from_utf8_lossy(&output.stdout)).into());
        }
        for node in &nodes {
            node.wait_for("CLUSTER INFO", "cluster_state:ok")?;
        }
        let cluster = Self { nodes };
        wait_until("replicas to follow their primaries", || {
            cluster.nodes[0].ask(&["CLUSTER", "NODES"]).is_ok_and(|text| text.matches("slave ").count() == 3)
        })?;
        Ok(cluster)
    }

    /// The index of a primary.
    pub(crate) fn primary(&self) -> Result<usize, Box<dyn Error>> {
        let is_primary = |node: &Node| node.ask(&["ROLE"]).is_ok_and(|role| role.starts_with("master"));
        self.nodes.iter().position(is_primary).ok_or_else(|| "the cluster has no primary".into())
    }

    /// Moves a thousand slots from one primary to another.
    pub(crate) fn reshard(&self) -> Result<(), Box<dyn Error>> {
        let text = self.nodes[0].ask(&["CLUSTER", "NODES"])?;
        let primaries: Vec<&str> =
            text.lines().filter(|line| line.contains("master")).filter_map(|line| line.split(' ').next()).collect();
        let [from, to, ..] = primaries[..] else { return Err("the cluster has fewer than two primaries".into()) };
        let output = Command::new("redis-cli")
            .args(["--cluster", "reshard", &self.nodes[0].address.to_string()])
            .args(["--cluster-from", from, "--cluster-to", to, "--cluster-slots", "1000", "--cluster-yes"])
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("slots could not be moved: {}", String::from_utf8_lossy(&output.stdout)).into())
    }
}

/// Waits, a bounded time, for something that is about to be.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) -> Result<(), Box<dyn Error>> {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > give_up {
            return Err(format!("waited {PATIENCE:?} in vain for {what}").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn spawn(folder: &Path, arguments: &[String]) -> Result<Child, Box<dyn Error>> {
    let mut command = Command::new("redis-server");
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().map_err(|error| format!("redis-server cannot be run: {error}; ./setup test installs it").into())
}

fn cli(address: SocketAddr, words: &[&str]) -> Result<String, Box<dyn Error>> {
    let port = address.port().to_string();
    let output = Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", &port]).args(words).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

/// The line after the one that names `name`, as `redis-cli` prints a list of pairs.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().skip_while(|line| *line != name).nth(1)
}
