//! A server with a repository of its own, and the means to break things in it.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use volley_examples::{Caller, ServerProcess, Spoil, programs};

/// How long the server lets a batch run.
pub(crate) const RUN_LIMIT: Duration = Duration::from_millis(200);
/// Rows of the largest batch, where memory is to run out.
pub(crate) const LARGE_BATCH: usize = 512;
/// How long a server of such batches lets one run: they are slow by themselves, and slower in parts.
const LARGE_RUN_LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Site {
    server: ServerProcess,
    root: PathBuf,
}

impl Site {
    /// A server with the bundled model and `breaking`, which breaks on demand.
    pub(crate) fn open(settings: &[(&str, &str)]) -> Result<Self, Box<dyn Error>> {
        let root = fresh_folder()?;
        copy_bundled(&root.join("cnn_lstm/1"))?;
        let breaking = root.join("breaking/1");
        fs::create_dir_all(&breaking)?;
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/gpu-runtime/tests/models/fault.onnx");
        fs::copy(model, breaking.join("model.onnx"))?;
        let library = programs()?.join("examples/libfaulty_operators.so");
        fs::write(root.join("breaking/config.toml"), format!("operator_libraries = [{library:?}]\n"))?;
        fs::write(root.join("fault"), "pass")?;
        Self::serve(root, RUN_LIMIT, settings)
    }

    /// A server with the bundled model alone, in fp32 and in large batches.
    pub(crate) fn open_for_large_batches() -> Result<Self, Box<dyn Error>> {
        let root = fresh_folder()?;
        copy_bundled(&root.join("cnn_lstm/1"))?;
        let settings = format!("variants = [\"fp32\"]\nmax_batch = {LARGE_BATCH}\nfull_batch = {LARGE_BATCH}\n");
        fs::write(root.join("cnn_lstm/config.toml"), settings)?;
        fs::write(root.join("fault"), "pass")?;
        Self::serve(
            root,
            LARGE_RUN_LIMIT,
            &[("VOLLEY_HTTP__MAX_BODY_BYTES", "67108864"), ("VOLLEY_RUNTIME__WORKERS", "1")],
        )
    }

    fn serve(root: PathBuf, run_limit: Duration, settings: &[(&str, &str)]) -> Result<Self, Box<dyn Error>> {
        let (repository, fault) = (path(&root)?.to_owned(), path(&root.join("fault"))?.to_owned());
        let limit = format!("{}ms", run_limit.as_millis());
        let mut all = vec![
            ("VOLLEY_MODEL_REPOSITORY", repository.as_str()),
            ("FAULT_OPERATOR_FILE", &fault),
            ("VOLLEY_RUNTIME__RUN_LIMIT", &limit),
        ];
        all.extend(settings);
        let server = ServerProcess::start(None, &all)?;
        Ok(Self { server, root })
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.server.http
    }

    /// Tells the operator what to do from now on. By rename, so that it never reads half a word.
    pub(crate) fn fault(&self, word: &str) -> Result<(), Box<dyn Error>> {
        let next = self.root.join("fault.next");
        fs::write(&next, word)?;
        Ok(fs::rename(next, self.root.join("fault"))?)
    }

    /// The faults that the server has counted since the start, as it names them.
    pub(crate) fn faults_seen(&self) -> Result<String, Box<dyn Error>> {
        let text = self.metrics()?;
        let faults = text.lines().filter(|line| line.starts_with("batch_processing_faults_total{model=\"breaking\""));
        let seen: Vec<String> = faults
            .filter_map(|line| {
                let (labels, count) = line.rsplit_once(' ')?;
                let fault = labels.split("fault=\"").nth(1)?.split('"').next()?;
                (count != "0").then(|| format!("{fault} {count}"))
            })
            .collect();
        Ok(format!("so far: {}", if seen.is_empty() { "nothing".into() } else { seen.join(", ") }))
    }

    /// Adds a spoilt version of the bundled model, has it loaded, and takes it away again. Returns the server's refusal.
    pub(crate) fn load_spoilt(&self, spoil: Spoil) -> Result<String, Box<dyn Error>> {
        let folder = self.root.join("cnn_lstm/2");
        copy_bundled(&folder)?;
        spoil(&folder)?;
        let answer = Caller::connect(self.http())?.post("/v2/repository/models/cnn_lstm/load", "", b"")?;
        fs::remove_dir_all(folder)?;
        if answer.status == 200 {
            return Err("a spoilt version was loaded".into());
        }
        let text = answer.json()?["error"].as_str().unwrap_or_default().to_owned();
        let short: String = text.replace(path(&self.root)?, "").chars().take(90).collect();
        Ok(format!("refused: {short}..."))
    }

    /// Has the bundled model loaded anew.
    pub(crate) fn load_again(&self) -> Result<(), Box<dyn Error>> {
        let answer = Caller::connect(self.http())?.post("/v2/repository/models/cnn_lstm/load", "", b"")?;
        if answer.status == 200 { Ok(()) } else { Err(answer.text().into()) }
    }

    /// Rows that the bundled model runs at once.
    pub(crate) fn row_limit(&self) -> Result<usize, Box<dyn Error>> {
        let text = self.metrics()?;
        let line = text.lines().find(|line| line.starts_with("batch_processing_row_limit{model=\"cnn_lstm\""));
        let value = line.and_then(|line| line.rsplit_once(' ')).ok_or("no row limit among the metrics")?.1;
        Ok(value.parse()?)
    }

    /// Leaves the server so much more address space than it has.
    pub(crate) fn limit_memory(&self, headroom: u64) -> Result<(), Box<dyn Error>> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.pid()))?;
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).ok_or("no VmSize")?;
        let kilobytes: u64 = size.trim().trim_end_matches(" kB").parse()?;
        self.set_memory_limit(&(kilobytes * 1024 + headroom).to_string())
    }

    pub(crate) fn lift_memory_limit(&self) -> Result<(), Box<dyn Error>> {
        self.set_memory_limit("unlimited")
    }

    fn set_memory_limit(&self, limit: &str) -> Result<(), Box<dyn Error>> {
        let pid = self.server.pid().to_string();
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--as={limit}:unlimited")]).status()?;
        if done.success() { Ok(()) } else { Err("prlimit could not limit the server's address space".into()) }
    }

    fn metrics(&self) -> Result<String, Box<dyn Error>> {
        Ok(Caller::connect(self.server.metrics)?.get("/metrics")?.text())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn path(path: &Path) -> Result<&str, Box<dyn Error>> {
    Ok(path.to_str().ok_or("the temporary folder's path is not UTF-8")?)
}

fn fresh_folder() -> std::io::Result<PathBuf> {
    let root = std::env::temp_dir().join(format!("volley-faults-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root)?;
    Ok(root)
}

fn copy_bundled(folder: &Path) -> std::io::Result<()> {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/repository/cnn_lstm/1");
    fs::create_dir_all(folder)?;
    for file in ["model.onnx", "golden.safetensors"] {
        fs::copy(bundled.join(file), folder.join(file))?;
    }
    Ok(())
}
