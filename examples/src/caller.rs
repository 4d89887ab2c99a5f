//! A caller over one kept connection, that checks what it is answered.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::message;

/// A blocking HTTP connection to a server of the protocol.
#[derive(Debug)]
pub struct Caller {
    stream: BufReader<TcpStream>,
}

/// A response, read whole.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    json_length: Option<usize>,
    body: Vec<u8>,
}

impl Caller {
    /// Connects to `address`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        // Only a server that hangs is ever waited for this long.
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks `model` about `rows` rows of its input `input`, whose values are binary32; the answer comes in raw bytes.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn infer(
        &mut self,
        model: &str,
        input: &str,
        shape: &[usize],
        values: &[f32],
    ) -> Result<Answer, Box<dyn Error>> {
        self.exchange(&message::inference(model, input, shape, values, &json!({ "cache": false })))
    }

    /// Posts `body`; `headers` are whole lines.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Result<Answer, Box<dyn Error>> {
        self.exchange(&message::post(path, headers, body))
    }

    /// Gets `path`.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn get(&mut self, path: &str) -> Result<Answer, Box<dyn Error>> {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: volley\r\n\r\n").as_bytes())
    }

    /// Sends a whole request, and reads the reply.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn exchange(&mut self, message: &[u8]) -> Result<Answer, Box<dyn Error>> {
        self.stream.get_mut().write_all(message)?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status line came back")?;
        let (mut length, mut json_length) = (0, None);
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            } else if name.eq_ignore_ascii_case("inference-header-content-length") {
                json_length = Some(value.trim().parse()?);
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, json_length, body })
    }
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// Bytes of the body.
    #[must_use]
    pub fn length(&self) -> usize {
        self.body.len()
    }

    /// The raw bytes of all outputs, in the model's order.
    #[must_use]
    pub fn outputs(&self) -> &[u8] {
        &self.body[self.json_length.unwrap_or(self.body.len())..]
    }
}
