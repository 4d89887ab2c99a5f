//! Calls over HTTP/2 by a client that is well made, on a kept connection.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use crate::attack::Call;
use crate::visit::{self, PATIENCE};

/// A client of the gRPC listener. Its connection is opened when it is needed.
pub(crate) struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    /// gRPC's own, if it came; else HTTP's.
    pub status: Result<u16, u16>,
    pub body: Bytes,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    /// Makes a call; `None` if there is no answer in time.
    ///
    /// # Errors
    /// When the connection cannot be opened or breaks.
    pub(crate) async fn call(&mut self, call: &Call) -> Result<Option<Answer>, Box<dyn Error>> {
        let mut request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://{}{}", self.address, call.path));
        for &(name, value) in &call.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(call.body.clone().into()))?;
        let answer = timeout(PATIENCE, self.answer(request)).await;
        if !matches!(answer, Ok(Ok(_))) {
            self.sender = None;
        }
        answer.ok().transpose()
    }

    async fn answer(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Box<dyn Error>> {
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
        let status = status.and_then(|status| status.to_str().ok()?.parse().ok()).ok_or(http);
        Ok(Answer { status, body: body.to_bytes() })
    }
}
