//! Redis processes on free ports of the loopback interface: one server, a primary with its sentinels, a cluster. Each is
//! ended, and its folder removed, when it is dropped, also by a test that panics.
//!
//! Knows the standard library alone, so that examples and benchmarks take the file as it is.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What is waited for takes milliseconds, or seconds where something fails over; this says that it will not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `holds`.
///
/// # Panics
///
/// If it does not within a minute.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        sleep(Duration::from_millis(2));
    }
}

/// A port that was free a moment ago, and that nobody here is given again: below those that systems give to outgoing
/// connections, so that it is still free for a server that is started anew.
fn free_port() -> u16 {
    const PORTS: Range<u32> = 10_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Other processes that run tests begin elsewhere.
        let next = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(997));
        let port = (PORTS.start + next % (PORTS.end - PORTS.start)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A folder that goes with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("volley-redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for temporary files");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left over is in the system's folder for such.
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A `redis-server`.
pub(crate) struct Redis {
    process: Child,
    port: u16,
    words: Vec<String>,
    cli_words: Vec<String>,
    folder: Folder,
}

impl Redis {
    /// A server with these settings, in the words of its command line. Keeps nothing on disk unless told to.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_in(Folder::new(), settings)
    }

    fn start_in(folder: Folder, settings: &[&str]) -> Self {
        let words: Vec<String> = settings.iter().copied().map(str::to_owned).collect();
        for _ in 0..10 {
            let port = free_port();
            let mut process = Self::spawn(port, &words, folder.path());
            if Self::listens(port, &mut process) {
                return Self { process, port, words, cli_words: Vec::new(), folder };
            }
        }
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        panic!("redis-server does not start; is it installed (./setup test)? {log}");
    }

    /// A server that speaks TLS, and asks for the password `password` of the user `replica`, who may do what a replica
    /// needs on names that begin with `volley`.
    pub(crate) fn start_guarded() -> Self {
        let folder = Folder::new();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (key, certificate, users) = (file("key.pem"), file("certificate.pem"), file("users"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-subj", "/CN=volley", "-days", "2", "-keyout", &key, "-out", &certificate])
            .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let rules = "reset on >password ~volley:* &volley:* +get +set +eval +subscribe +@sortedset +publish +time +hello +ping +info +client";
        fs::write(&users, format!("user default on nopass ~* &* +@all\nuser replica {rules}\n"))
            .expect("a file of users");
        let settings =
            ["--aclfile", &users, "--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-auth-clients", "no"];
        let mut redis = Self::start_in(folder, &[&settings[..], &["--tls-port", "PORT"]].concat());
        redis.cli_words = ["--tls", "--cacert", &certificate].map(str::to_owned).to_vec();
        redis
    }

    /// Where a server that speaks TLS has its certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    fn spawn(port: u16, words: &[String], folder: &Path) -> Child {
        let log = fs::File::create(folder.join("log")).expect("a log file");
        let tls = words.iter().any(|word| word == "PORT");
        let port = port.to_string();
        let words = words.iter().map(|word| if word == "PORT" { port.as_str() } else { word });
        Command::new("redis-server")
            // First, since a file of settings must come first.
            .args(words)
            .args(["--port", if tls { "0" } else { &port }, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            // A replica whose first copy was cut short asks again only after `repl-timeout`: by default a minute, as long as
            // anything here is waited for.
            .args(["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--repl-timeout", "5"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed (./setup test)")
    }

    /// Whether the process listens before it ends.
    fn listens(port: u16, process: &mut Child) -> bool {
        let mut ended = false;
        wait_until("redis-server listens", || {
            ended = process.try_wait().is_ok_and(|status| status.is_some());
            ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        !ended
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What `redis-cli` prints for these words.
    pub(crate) fn cli(&self, words: &[&str]) -> String {
        let output = cli(self.port, &self.cli_words, words);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Keeps its sockets open and answers nothing.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {signal}");
    }

    /// Ends without a word, as a machine does that loses power.
    pub(crate) fn kill(&mut self) {
        // It may have ended already.
        _ = self.process.kill();
        _ = self.process.wait();
    }

    /// Starts again on the same port, with what it kept on disk.
    pub(crate) fn restart(&mut self) {
        self.kill();
        for _ in 0..100 {
            self.process = Self::spawn(self.port, &self.words, self.folder.path());
            if Self::listens(self.port, &mut self.process) {
                return;
            }
            // Somebody's outgoing connection may have the port for a moment.
            sleep(Duration::from_millis(20));
        }
        panic!("redis-server does not start again on port {}", self.port);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn cli(port: u16, options: &[String], words: &[&str]) -> Output {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &port.to_string()]).args(options).args(words).output().expect("redis-cli is installed")
}

/// A primary, a replica of it, and three sentinels that watch them under the name `prices`.
pub(crate) struct Sentinels {
    pub(crate) primary: Redis,
    pub(crate) replica: Redis,
    sentinels: Vec<Redis>,
}

impl Sentinels {
    pub(crate) fn start() -> Self {
        let primary = Redis::start(&[]);
        let replica = Redis::start(&["--replicaof", "127.0.0.1", &primary.port().to_string()]);
        wait_until("the replica has caught up", || {
            replica.cli(&["info", "replication"]).contains("master_link_status:up")
        });
        let sentinels: Vec<Redis> = (0..3).map(|_| Self::sentinel(primary.port())).collect();
        let knows_all = |sentinel: &Redis| {
            let known = sentinel.cli(&["sentinel", "master", "prices"]);
            let mut lines = known.lines();
            let mut number = |field: &str| {
                lines.find(|line| *line == field)?;
                lines.next()
            };
            (number("num-slaves"), number("num-other-sentinels")) == (Some("1"), Some("2"))
        };
        wait_until("the sentinels know of each other", || sentinels.iter().all(knows_all));
        Self { primary, replica, sentinels }
    }

    fn sentinel(primary: u16) -> Redis {
        let folder = Folder::new();
        let file = folder.path().join("sentinel.conf");
        let settings = format!(
            "sentinel monitor prices 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds prices 500\n\
             sentinel failover-timeout prices 3000\n"
        );
        fs::write(&file, settings).expect("a configuration file");
        Redis::start_in(folder, &[&file.display().to_string(), "--sentinel"])
    }

    pub(crate) fn url(&self) -> String {
        let [first, rest @ ..] = &self.sentinels[..] else { unreachable!("three sentinels") };
        let nodes: Vec<String> = rest.iter().map(|node| format!("node=127.0.0.1:{}", node.port())).collect();
        format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=prices&{}", first.port(), nodes.join("&"))
    }
}

/// Three primaries with a replica each.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Redis>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let nodes: Vec<Redis> = (0..6)
            .map(|_| {
                let bus = free_port().to_string();
                Redis::start(&[
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    &bus,
                    "--cluster-node-timeout",
                    "1500",
                    "--cluster-replica-validity-factor",
                    "0",
                ])
            })
            .collect();
        let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let mut words = vec!["--cluster", "create"];
        words.extend(addresses.iter().map(String::as_str));
        words.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        let created = nodes[0].cli(&words);
        assert!(created.contains("All 16384 slots covered"), "{created}");
        let cluster = Self { nodes };
        cluster.wait_until_whole();
        cluster
    }

    pub(crate) fn url(&self) -> String {
        let [first, rest @ ..] = &self.nodes[..] else { unreachable!("six nodes") };
        let nodes: Vec<String> = rest.iter().map(|node| format!("node=127.0.0.1:{}", node.port())).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", first.port(), nodes.join("&"))
    }

    /// Waits until every node finds the cluster in order, and every replica has caught up.
    ///
    /// # Panics
    ///
    /// If they do not within a minute, with what each node says of itself and the others.
    pub(crate) fn wait_until_whole(&self) {
        let start = Instant::now();
        while let Some(node) = self.nodes.iter().find(|node| !Self::is_whole(node)) {
            if start.elapsed() >= PATIENCE {
                let says = |node: &Redis| {
                    let words = [&["cluster", "info"][..], &["cluster", "nodes"], &["info", "replication"]];
                    format!("port {}:\n{}", node.port(), words.map(|words| node.cli(words)).join("\n"))
                };
                let all: Vec<String> = self.nodes.iter().map(says).collect();
                panic!("in vain: the cluster is in order, as port {} sees it\n{}", node.port(), all.join("\n\n"));
            }
            sleep(Duration::from_millis(2));
        }
    }

    fn is_whole(node: &Redis) -> bool {
        let replication = node.cli(&["info", "replication"]);
        let follows = replication.contains("role:slave") && replication.contains("master_link_status:up");
        let leads = replication.contains("role:master") && replication.contains("connected_slaves:1");
        node.cli(&["cluster", "info"]).contains("cluster_state:ok") && (follows || leads)
    }

    /// Whether all nodes see the same slots at the same nodes. A primary that is killed before its replica does takes what
    /// it was given last with it.
    pub(crate) fn agrees(&self) -> bool {
        // A line is: id, address, flags, five more words, and the ranges of slots.
        let slots_of = |line: &str| {
            let mut words = line.split(' ');
            let id = words.next().unwrap_or_default().to_owned();
            (id, words.skip(7).collect::<Vec<_>>().join(" "))
        };
        let seen_by = |node: &Redis| -> BTreeMap<String, String> {
            node.cli(&["cluster", "nodes"]).lines().map(slots_of).collect()
        };
        let first = seen_by(&self.nodes[0]);
        self.nodes[1..].iter().all(|node| seen_by(node) == first)
    }

    /// Which living node has the slot of `key`, as the first node other than `except` sees it.
    pub(crate) fn owner_of(&self, key: &str, except: Option<usize>) -> Option<usize> {
        let asked = &self.nodes[usize::from(except == Some(0))];
        let slot: u32 = asked.cli(&["cluster", "keyslot", key]).parse().expect("a slot");
        let holds = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse().is_ok_and(|first: u32| first <= slot) && last.parse().is_ok_and(|last: u32| slot <= last)
        };
        // A line is: id, address, flags, five more words, and the ranges of slots.
        let nodes = asked.cli(&["cluster", "nodes"]);
        let mut living = nodes.lines().filter(|line| !line.contains("fail"));
        let line = living.find(|line| line.split(' ').skip(8).any(holds))?;
        let port = line.split([':', '@']).nth(1)?;
        self.nodes.iter().position(|node| node.port().to_string() == port)
    }
}
