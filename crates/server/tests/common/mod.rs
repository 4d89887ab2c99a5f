//! The real server program on free ports, and a client that can send anything.

#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod folder;
pub(crate) mod grpc;
pub(crate) mod repository;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// One window of the bundled model, in bytes.
pub(crate) const WINDOW_BYTES: usize = 50 * 60 * 4;

/// A server of its own; killed when dropped.
pub(crate) struct ServerProcess {
    child: Child,
    /// Where inference requests go.
    pub http: SocketAddr,
    /// Where calls go.
    pub grpc: SocketAddr,
    /// Where `/metrics` is.
    pub metrics: SocketAddr,
    /// Where operators are answered.
    pub admin: SocketAddr,
    log: Option<std::thread::JoinHandle<Vec<Value>>>,
}

impl ServerProcess {
    /// Starts `volley-server` with these settings in its environment, and waits until it is ready.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_with(&[], settings)
    }

    /// Starts it with these arguments as well.
    pub(crate) fn start_with(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volley-server"));
        command.args(["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--admin-port", "0"]);
        command.args(["--log-format", "json"]).args(arguments).envs(settings.iter().copied());
        command.stderr(Stdio::piped()).stdin(Stdio::null());
        let mut child = command.spawn().expect("the server was built");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut seen = Vec::new();
        let ready = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("the server ended before it was ready:\n{}", seen.join("\n"))
            };
            match serde_json::from_str::<Value>(&line) {
                Ok(entry) if entry["message"] == "ready" => break entry,
                _ => seen.push(line),
            }
        };
        let address = |field: &str| -> SocketAddr {
            let text = ready[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {ready}"));
            text.parse().expect("an address")
        };
        let (http, grpc, metrics, admin) = (address("http"), address("grpc"), address("metrics"), address("admin"));
        // The pipe is read to its end, so that the server never waits for room in it.
        let log = std::thread::spawn(move || {
            let lines = seen.into_iter().chain(lines.map_while(Result::ok));
            lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
        });
        Self { child, http, grpc, metrics, admin, log: Some(log) }
    }

    /// What a server with these settings says, which must not start.
    pub(crate) fn refusal(settings: &[(&str, &str)]) -> String {
        let failure = std::panic::catch_unwind(|| Self::start(settings));
        *failure.err().expect("it must not start").downcast::<String>().expect("a message")
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill can be run").success());
    }

    /// Waits for the end; returns whether it was a success, and what was logged, but for `ready`.
    pub(crate) fn wait(mut self) -> (bool, Vec<Value>) {
        let status = self.child.wait().expect("it was started");
        let log = self.log.take().expect("taken once").join().expect("the log is read");
        (status.success(), log)
    }

    /// What `/metrics` says.
    pub(crate) fn metrics(&self) -> String {
        let reply = Connection::to(self.metrics).send("GET", "/metrics", &[("Connection", "close")], b"");
        String::from_utf8(reply.body).expect("text")
    }

    /// The value of a series, by its name and labels as they are written.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().expect("a number")
    }

    /// A connection to the inference port.
    pub(crate) fn connect(&self) -> Connection {
        Connection::to(self.http)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until what is hoped for is there: what the server does by itself takes a moment. Only a server that never does it
/// is waited for this long.
pub(crate) fn eventually(what: &str, mut is_there: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is_there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} never came");
}

/// A request that holds what there is room for once, and is sent again as long as it is refused: whoever looks whether it
/// `is_held` may have had the room itself when it came.
pub(crate) fn held(what: &str, request: impl Fn() -> Connection, mut is_held: impl FnMut() -> bool) -> Connection {
    let mut holding = request();
    eventually(what, || {
        if holding.is_answered() {
            holding = request();
        }
        is_held() && !holding.is_answered()
    });
    holding
}

/// A response, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The text of a refusal.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error in {}", self.json())).to_owned()
    }

    /// The values of output `index`, whichever form they came in.
    pub(crate) fn values(&self, index: usize) -> Vec<f32> {
        let Some(length) = self.header("inference-header-content-length") else {
            let json = self.json();
            let data = json["outputs"][index]["data"].as_array().expect("values").clone();
            return data.iter().map(|value| value.as_f64().expect("a number") as f32).collect();
        };
        let length: usize = length.parse().expect("a length");
        let json: Value = serde_json::from_slice(&self.body[..length]).expect("JSON before the tensors");
        let size = |i: usize| json["outputs"][i]["parameters"]["binary_data_size"].as_u64().expect("a size") as usize;
        let start = length + (0..index).map(size).sum::<usize>();
        let bytes = &self.body[start..start + size(index)];
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

/// A keep-alive connection that sends what it is given, right or wrong.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a socket option");
        // Only a server that hangs is ever waited for this long.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket option");
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.write(method, path, headers, body);
        self.read().expect("a reply")
    }

    pub(crate) fn write(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut message = format!("{method} {path} HTTP/1.1\r\nHost: volley\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            message += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            message += &format!("{name}: {value}\r\n");
        }
        message += "\r\n";
        self.write_raw(&[message.as_bytes(), body].concat());
    }

    /// Sends bytes as they are. A server that has answered and closed already makes this fail, which is no news.
    pub(crate) fn write_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Whether there is something to read, or the server has closed.
    pub(crate) fn is_answered(&mut self) -> bool {
        let stream = self.stream.get_mut();
        stream.set_nonblocking(true).expect("a socket option");
        let is_silent = stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).expect("a socket option");
        !is_silent
    }

    /// No more is sent.
    pub(crate) fn finish_sending(&mut self) {
        let _ = self.stream.get_mut().shutdown(std::net::Shutdown::Write);
    }

    /// Reads one reply; `None` if the server closed the connection first.
    pub(crate) fn read(&mut self) -> Option<Reply> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok().filter(|&count| count > 0)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length =
            headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, v)| v.parse().expect("a length"));
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some(Reply { status, headers, body })
    }

    pub(crate) fn infer(&mut self, body: &Body) -> Reply {
        self.ask("cnn_lstm", body)
    }

    pub(crate) fn ask(&mut self, model: &str, body: &Body) -> Reply {
        let length = body.json_length.map(|length| length.to_string());
        let headers: Vec<_> =
            length.iter().map(|length| ("Inference-Header-Content-Length", length.as_str())).collect();
        self.send("POST", &format!("/v2/models/{model}/infer"), &headers, &body.bytes)
    }
}

/// The body of an inference request.
pub(crate) struct Body {
    pub bytes: Vec<u8>,
    pub json_length: Option<usize>,
}

/// A window whose values depend on `seed` alone.
pub(crate) fn window(seed: usize) -> Vec<f32> {
    (0..3000).map(|i| ((seed * 31 + i * 17) % 101) as f32 / 50.0 - 1.0).collect()
}

/// A request with binary tensors in both directions and these parameters.
pub(crate) fn binary_request(windows: &[Vec<f32>], parameters: &Value) -> Body {
    let mut parameters = parameters.clone();
    parameters["binary_data_output"] = true.into();
    let size = windows.len() * WINDOW_BYTES;
    let json = json!({
        "inputs": [{
            "name": "input", "shape": [windows.len(), 50, 60], "datatype": "FP32",
            "parameters": { "binary_data_size": size }
        }],
        "parameters": parameters,
    })
    .to_string();
    let mut bytes = json.into_bytes();
    let json_length = Some(bytes.len());
    bytes.extend(windows.iter().flatten().flat_map(|value| value.to_le_bytes()));
    Body { bytes, json_length }
}

/// A request in JSON alone.
pub(crate) fn json_request(windows: &[Vec<f32>], parameters: &Value) -> Body {
    let data: Vec<f32> = windows.iter().flatten().copied().collect();
    let json = json!({
        "inputs": [{ "name": "input", "shape": [windows.len(), 50, 60], "datatype": "FP32", "data": data }],
        "parameters": parameters,
    });
    Body { bytes: json.to_string().into_bytes(), json_length: None }
}
