//! The servers that are compared, and how each is started and spoken to.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use volley_examples::{message, programs};

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Volley,
    Mosec,
    /// Triton's own front end, scheduler and core, with its Python backend.
    Triton,
    /// Ray Serve as its documentation advises for throughput.
    Ray,
    /// Ray Serve as it comes.
    RayDefault,
}

/// How long a batch may be held back for more requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    TwoMilliseconds,
    Least,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Volley => "volley",
            Self::Mosec => "mosec",
            Self::Triton => "triton",
            Self::Ray => "ray",
            Self::RayDefault => "ray_default",
        }
    }

    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Volley => "Volley",
            Self::Mosec => "mosec, raw bytes, one worker",
            Self::Triton => {
                "Triton's core from the wheel of pytriton, binary tensors, ONNX Runtime in its Python backend (no wheel \
                 carries its own)"
            }
            Self::Ray => "Ray Serve, raw bytes, one replica, throughput-optimised and behind its HAProxy",
            Self::RayDefault => "Ray Serve, raw bytes, one replica, its default proxy",
        }
    }

    /// A request about `window` in the form that costs this server least.
    pub(crate) fn request(self, window: &[f32]) -> Vec<u8> {
        match self {
            Self::Volley | Self::Triton => message::inference("cnn_lstm", "input", &[1, 50, 60], window, &json!({})),
            Self::Mosec => message::post("/inference", "", &message::little_endian(window)),
            Self::Ray | Self::RayDefault => message::post("/", "", &message::little_endian(window)),
        }
    }

    /// The command that serves `model` on `port`; `workspace` is an empty folder for what it needs.
    pub(crate) fn command(
        self,
        variant: &str,
        model: &Path,
        wait: Wait,
        port: u16,
        workspace: &Path,
    ) -> Result<Command, Box<dyn Error>> {
        let script = |name: &str| -> Result<Command, Box<dyn Error>> {
            let mut command = Command::new(python()?);
            command.arg(scripts().join(name));
            Ok(command)
        };
        let mut command = match self {
            Self::Volley => {
                let mut command = Command::new(programs()?.join("volley-server"));
                for listener in ["grpc", "admin", "metrics"] {
                    command.args([&format!("--{listener}-port"), "0"]);
                }
                command.args(["--http-port", &port.to_string()]);
                command.env("VOLLEY_MODELS__CNN_LSTM__VARIANTS", format!("[\"{variant}\"]"));
                command.env("VOLLEY_CACHE__ENABLED", "false");
                return Ok(command);
            }
            Self::Mosec => {
                let mut command = script("mosec_server.py")?;
                command.env("MOSEC_ADDRESS", "127.0.0.1").env("MOSEC_PORT", port.to_string());
                command.env("TMPDIR", workspace);
                command
            }
            Self::Triton => triton(wait, port, workspace)?,
            Self::Ray | Self::RayDefault => {
                let mut command = script("ray_server.py")?;
                command.env("PEER_PORT", port.to_string()).env("RAY_TMPDIR", workspace);
                command.env("RAY_USAGE_STATS_ENABLED", "0");
                if self == Self::Ray {
                    command.env("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1").env("RAY_SERVE_ENABLE_HA_PROXY", "1");
                }
                command
            }
        };
        command.envs(environment(model, wait)?);
        Ok(command)
    }
}

/// Triton wants a model repository, and its Python backend beside the program that runs Python.
fn triton(wait: Wait, port: u16, workspace: &Path) -> Result<Command, Box<dyn Error>> {
    let packages = packages()?;
    let server = packages.join("pytriton/tritonserver");
    let backend = workspace.join("backends/python");
    fs::create_dir_all(&backend)?;
    for entry in fs::read_dir(server.join("backends/python"))? {
        let entry = entry?;
        symlink(entry.path(), backend.join(entry.file_name()))?;
    }
    let python = packages.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let stub = server.join("python_backend_stubs").join(python.trim_start_matches("python"));
    symlink(stub.join("triton_python_backend_stub"), backend.join("triton_python_backend_stub"))?;

    let model = workspace.join("models/cnn_lstm");
    fs::create_dir_all(model.join("1"))?;
    fs::copy(scripts().join("triton_model.py"), model.join("1/model.py"))?;
    let delay = match wait {
        Wait::TwoMilliseconds => 2000,
        Wait::Least => 0,
    };
    let config = format!(
        "backend: \"python\"\n\
         max_batch_size: 32\n\
         input [{{ name: \"input\" data_type: TYPE_FP32 dims: [50, 60] }}]\n\
         output [{{ name: \"features\" data_type: TYPE_FP32 dims: [128] }},\n\
                 {{ name: \"prediction\" data_type: TYPE_FP32 dims: [3] }}]\n\
         instance_group [{{ kind: KIND_CPU count: 1 }}]\n\
         dynamic_batching {{ max_queue_delay_microseconds: {delay} }}\n"
    );
    fs::write(model.join("config.pbtxt"), config)?;

    let mut command = Command::new(server.join("bin/tritonserver"));
    command.arg("--model-repository").arg(workspace.join("models"));
    command.arg("--backend-directory").arg(workspace.join("backends"));
    command.args(["--http-address", "127.0.0.1", "--http-port", &port.to_string()]);
    command.args(["--allow-grpc=false", "--allow-metrics=false"]);
    command.env("LD_LIBRARY_PATH", packages.join("nvidia_pytriton.libs"));
    // The interpreter of its backend finds its packages by the first `python3` there. With those of another environment its
    // answers had tensors of no bytes.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", installed().join("bin").display()));
    Ok(command)
}

/// The Python that the peers are installed for.
pub(crate) fn python() -> Result<PathBuf, Box<dyn Error>> {
    let python = installed().join("bin/python");
    if python.exists() {
        Ok(python)
    } else {
        Err("the peers are not installed; `just bench peers` installs them".into())
    }
}

/// Where the peers' servers are written.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/peers")
}

/// What the scripts are told.
pub(crate) fn environment(model: &Path, wait: Wait) -> Result<[(&'static str, String); 4], Box<dyn Error>> {
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| io::Error::other("a path is not UTF-8"));
    let wait_ms = match wait {
        Wait::TwoMilliseconds => 2,
        Wait::Least => 0,
    };
    Ok([
        ("PEER_MODEL", text(model)?),
        ("PEER_OPERATORS", text(&programs()?.join("examples/liboperators.so"))?),
        ("PEER_WAIT_MS", wait_ms.to_string()),
        ("PYTHONPATH", format!("{}:{}", text(&scripts())?, text(&packages()?)?)),
    ])
}

fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.volley/peers")
}

fn packages() -> Result<PathBuf, Box<dyn Error>> {
    for entry in fs::read_dir(installed().join("lib"))? {
        let packages = entry?.path().join("site-packages");
        if packages.join("pytriton").exists() {
            return Ok(packages);
        }
    }
    Err("pytriton is not installed; `just bench peers` installs it".into())
}
