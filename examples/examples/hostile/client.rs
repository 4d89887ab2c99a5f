//! Calls over HTTP/2 by a client that is well made, on a kept connection.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use crate::call::Call;
use crate::visit::{self, PATIENCE};

/// A client of the gRPC listener. Its connection is opened when it is needed.
pub(crate) struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// With a status of gRPC's, and this body.
    Code(u16, Bytes),
    /// With one of HTTP's alone.
    Status(u16),
    /// With its stream or the connection.
    Closed,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    /// Makes a call; `None` if it does not end in time.
    pub(crate) async fn call(&mut self, call: &Call) -> Option<Ended> {
        let ended = timeout(PATIENCE, self.answer(call)).await;
        if !matches!(ended, Ok(Ok(_))) {
            self.sender = None;
        }
        Some(ended.ok()?.unwrap_or(Ended::Closed))
    }

    async fn answer(&mut self, call: &Call) -> Result<Ended, Box<dyn Error>> {
        let mut request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://{}{}", self.address, call.path));
        for &(name, value) in &call.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(call.body.clone().into()))?;
        let sender = match &mut self.sender {
            Some(sender) if !sender.is_closed() => sender,
            sender => {
                let stream = visit::connect(self.address, 0).await?;
                let (opened, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender.insert(opened)
            }
        };
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let http = response.status().as_u16();
        let head = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await?;
        let status = head.or_else(|| body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned());
        let code = status.and_then(|status| status.to_str().ok()?.parse().ok());
        Ok(code.map_or(Ended::Status(http), |code| Ended::Code(code, body.to_bytes())))
    }
}
