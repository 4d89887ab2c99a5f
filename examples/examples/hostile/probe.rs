//! Good requests in between: whatever others do, they are answered as ever.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::json;
use tokio::time::timeout;
use volley_examples::{Connection, ServerProcess, message};

use crate::call::Call;
use crate::client::{Client, Ended};
use crate::visit::PATIENCE;

const OK: u16 = 0;

/// A good request over HTTP and one over gRPC, with their first answers.
pub(crate) struct Probe {
    http: SocketAddr,
    grpc: SocketAddr,
    request: Vec<u8>,
    answer: Vec<u8>,
    call: Call,
    message: Bytes,
}

/// Connections that a probe keeps.
pub(crate) struct Kept {
    http: Option<Connection>,
    /// Takes hostile calls too: they are not to harm those that come after them.
    pub grpc: Client,
}

impl Probe {
    /// Asks for the first time, while nobody does any harm.
    pub(crate) async fn prepare(server: &ServerProcess) -> Result<Self, Box<dyn Error>> {
        let window = message::window(0);
        let request = message::inference("cnn_lstm", "input", &[1, 50, 60], &window, &json!({ "cache": false }));
        let mut connection = Connection::open(server.http).await?;
        let reply = connection.ask(&request).await.map_err(|broken| broken.error)?;
        if reply.status != 200 {
            let text = String::from_utf8_lossy(reply.body);
            return Err(format!("a good request was answered {}: {text}", reply.status).into());
        }
        let answer = reply.body.to_vec();
        let call = Call {
            path: "/inference.GRPCInferenceService/ModelInfer",
            headers: vec![("content-type", "application/grpc"), ("te", "trailers")],
            is_framed: true,
            body: message::grpc_inference("cnn_lstm", "input", &[1, 50, 60], &window),
        };
        let (http, grpc) = (server.http, server.grpc);
        let message = match Client::new(grpc).call(&call).await {
            Some(Ended::Code(OK, body)) => body,
            other => return Err(format!("a good call ended with {other:?}").into()),
        };
        Ok(Self { http, grpc, request, answer, call, message })
    }

    /// Where nothing is kept yet.
    pub(crate) fn kept(&self) -> Kept {
        Kept { http: None, grpc: Client::new(self.grpc) }
    }

    /// Asks on a fresh connection and on a kept one, and calls on a kept one. What was wrong, if anything.
    pub(crate) async fn ask(&self, kept: &mut Kept) -> Result<(), String> {
        self.ask_over("a fresh connection", &mut None).await?;
        self.ask_over("a kept connection", &mut kept.http).await?;
        match kept.grpc.call(&self.call).await {
            Some(Ended::Code(OK, body)) if body == self.message => Ok(()),
            Some(ended) => Err(format!("a good call ended with {ended:?}")),
            None => Err("a good call was not answered".to_owned()),
        }
    }

    async fn ask_over(&self, name: &str, connection: &mut Option<Connection>) -> Result<(), String> {
        let asked = async {
            let connection = match connection {
                Some(connection) => connection,
                None => connection.insert(Connection::open(self.http).await.map_err(|error| error.to_string())?),
            };
            let reply = connection.ask(&self.request).await.map_err(|broken| broken.error.to_string())?;
            if (reply.status, reply.body) == (200, &self.answer[..]) && !reply.closes {
                return Ok(());
            }
            Err(format!("was answered {}: {}", reply.status, String::from_utf8_lossy(reply.body)))
        };
        let outcome = timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("was not answered".to_owned()));
        if outcome.is_err() {
            *connection = None;
        }
        outcome.map_err(|what| format!("a good request on {name}: {what}"))
    }
}
