//! One keep-alive HTTP/1.1 connection, driven by the task that uses it.

use std::net::SocketAddr;
use std::pin::pin;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::header::RETRY_AFTER;
use hyper::http::response::Parts;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::failure::{Failure, FailureKind};

/// A connection and the state machine behind it.
///
/// hyper wants its state machine polled; doing that in the task that waits for the reply saves a wake-up
/// and a task switch per request against spawning it.
#[derive(Debug)]
pub(crate) struct Link {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once the server has closed the connection.
    driver: Option<Connection<TokioIo<TcpStream>, Full<Bytes>>>,
}

/// A whole reply.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
}

impl Link {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let refused =
            |error: std::io::Error| Failure::new(FailureKind::Connect, format!("connect to {address}: {error}"));
        let stream = TcpStream::connect(address).await.map_err(refused)?;
        // hyper writes a request's header and body in one vectored write; with Nagle off it leaves at once.
        stream.set_nodelay(true).map_err(refused)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| disconnected(&error))?;
        Ok(Self { sender, driver: Some(driver) })
    }

    /// Whether another request can be sent. A server may close a kept-alive connection between two
    /// requests; that is no failure of the next one, which merely needs a new connection.
    pub(crate) async fn is_usable(&mut self) -> bool {
        if self.sender.is_ready() {
            return true;
        }
        let Some(driver) = &mut self.driver else {
            return false;
        };
        let closed = tokio::select! {
            biased;
            _ = driver => true,
            ready = self.sender.ready() => return ready.is_ok(),
        };
        if closed {
            self.driver = None;
        }
        false
    }

    /// Waits, with no request under way, until the server closes the connection.
    pub(crate) async fn closed(&mut self) {
        if let Some(driver) = &mut self.driver {
            // How it ended makes no difference: nothing was under way.
            let _ = driver.await;
            self.driver = None;
        }
    }

    /// Sends one request and reads the whole reply. Not to be used again after an error, or after the
    /// future was dropped half-way.
    pub(crate) async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let Self { sender, driver } = self;
        let mut answer = pin!(async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { head, body })
        });
        if let Some(connection) = driver {
            tokio::select! {
                biased;
                outcome = &mut answer => return outcome.map_err(|error: hyper::Error| disconnected(&error)),
                _ = connection => *driver = None,
            }
        }
        // The connection has ended, but a reply with `Connection: close` may have come in whole.
        answer.await.map_err(|error| disconnected(&error))
    }
}

/// Bytes of an error's body that are shown.
const SHOWN: usize = 300;

impl Answer {
    /// Passes a 200 on and turns anything else into a failure that says what the server said.
    pub(crate) fn into_success(self) -> Result<Self, Failure> {
        if self.head.status == StatusCode::OK {
            return Ok(self);
        }
        let said = String::from_utf8_lossy(&self.body[..self.body.len().min(SHOWN)]);
        Err(Failure {
            kind: FailureKind::Status(self.head.status.as_u16()),
            message: format!("status {}: {}", self.head.status, said.trim()),
            retry_after: self.head.headers.contains_key(RETRY_AFTER),
        })
    }
}

fn disconnected(error: &hyper::Error) -> Failure {
    let cause = std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"));
    Failure::new(FailureKind::Disconnected, format!("{error}{cause}"))
}
