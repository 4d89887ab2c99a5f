//! A gRPC client of the tests' own, whose messages are not the server's.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

/// The service that is called.
pub(crate) const SERVICE: &str = "/inference.GRPCInferenceService/";

type Parts = std::pin::Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send>>;

/// A connection, and the runtime that drives it while a call waits.
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    sender: SendRequest<StreamBody<Parts>>,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Messages, as they are framed, without their five bytes.
    pub messages: Vec<Bytes>,
    /// Whether each is compressed.
    pub compressed: Vec<bool>,
    /// The status: 0 is success.
    pub code: u32,
    /// What the status says.
    pub message: String,
    /// Headers and trailers.
    pub headers: HashMap<String, String>,
}

impl Ended {
    /// The only message of a call that went well.
    pub(crate) fn read<M: Message + Default>(&self) -> M {
        assert_eq!(self.code, 0, "{}", self.message);
        M::decode(&self.messages[0][..]).expect("a message")
    }
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("the server listens");
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .expect("HTTP/2");
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender }
    }

    /// Calls a method with one message.
    pub(crate) fn call(&mut self, method: &str, headers: &[(&str, &str)], message: &impl Message) -> Ended {
        self.call_raw(&format!("{SERVICE}{method}"), headers, vec![framed(&message.encode_to_vec(), false)])
    }

    /// Calls a path with frames as they are.
    pub(crate) fn call_raw(&mut self, path: &str, headers: &[(&str, &str)], frames: Vec<Bytes>) -> Ended {
        let frames = frames.into_iter().map(|frame| Ok(Frame::data(frame)));
        let request = request(path, headers, Box::pin(futures_util::stream::iter(frames)));
        let sender = &mut self.sender;
        self.runtime.block_on(async { ended(sender.send_request(request).await.expect("a response")).await })
    }

    /// Begins a call whose message never comes. It is sent with the next call.
    pub(crate) fn begin(&mut self, method: &str) {
        let request = request(&format!("{SERVICE}{method}"), &[], Box::pin(futures_util::stream::pending()));
        self.runtime.spawn(self.sender.send_request(request));
    }

    /// Begins a call of many messages, which goes on while the answers are read.
    pub(crate) fn open(&mut self, method: &str) -> Exchange<'_> {
        let (messages, sent) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let frames = futures_util::stream::unfold(sent, |mut sent| async {
            let frame = sent.recv().await?;
            Some((Ok(Frame::data(frame)), sent))
        });
        let request = request(&format!("{SERVICE}{method}"), &[], Box::pin(frames));
        let (runtime, sender) = (&self.runtime, &mut self.sender);
        let response = runtime.block_on(async { sender.send_request(request).await.expect("a response") });
        Exchange { runtime, messages, response, buffer: BytesMut::new() }
    }

    /// Sends calls and hangs up before they are answered.
    pub(crate) fn call_and_leave(mut self, method: &str, message: &impl Message, count: usize, patience: Duration) {
        let frame = framed(&message.encode_to_vec(), false);
        self.runtime.block_on(async {
            let calls = (0..count).map(|_| {
                let body = futures_util::stream::iter([Ok(Frame::data(frame.clone()))]);
                self.sender.send_request(request(&format!("{SERVICE}{method}"), &[], Box::pin(body)))
            });
            let calls = futures_util::future::join_all(calls);
            // Whichever is first: a call that is answered by then was none to be hung up on.
            let _ = tokio::time::timeout(patience, calls).await;
        });
    }
}

/// A call under way.
pub(crate) struct Exchange<'a> {
    runtime: &'a tokio::runtime::Runtime,
    messages: tokio::sync::mpsc::UnboundedSender<Bytes>,
    response: Response<Incoming>,
    buffer: BytesMut,
}

impl Exchange<'_> {
    pub(crate) fn send(&self, message: &impl Message) {
        self.messages.send(framed(&message.encode_to_vec(), false)).expect("the call goes on");
    }

    /// The next answer.
    pub(crate) fn next<M: Message + Default>(&mut self) -> M {
        loop {
            if let Some((_, message)) = unframed(&mut self.buffer) {
                return M::decode(message).expect("a message");
            }
            let body = self.response.body_mut();
            let frame = self.runtime.block_on(body.frame()).expect("the call goes on").expect("a frame");
            self.buffer.put(frame.into_data().expect("data"));
        }
    }

    /// Sends no more, and waits for the end.
    pub(crate) fn finish(self) -> Ended {
        drop(self.messages);
        self.runtime.block_on(ended(self.response))
    }

    /// Waits for the end without sending one.
    pub(crate) fn wait(self) -> Ended {
        self.runtime.block_on(ended(self.response))
    }
}

fn request(path: &str, headers: &[(&str, &str)], body: Parts) -> Request<StreamBody<Parts>> {
    let mut request = Request::post(format!("http://volley{path}")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.header("te", "trailers").body(StreamBody::new(body)).expect("a request")
}

async fn ended(response: Response<Incoming>) -> Ended {
    let mut all = response.headers().clone();
    let collected = response.into_body().collect().await.expect("a whole response");
    all.extend(collected.trailers().cloned().unwrap_or_default());
    let headers: HashMap<String, String> =
        all.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned())).collect();
    let mut bytes = BytesMut::from(&collected.to_bytes()[..]);
    let frames: Vec<_> = std::iter::from_fn(|| unframed(&mut bytes)).collect();
    let text = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
    Ended {
        code: text("grpc-status").parse().expect("every call has a status"),
        message: percent_encoding::percent_decode_str(text("grpc-message")).decode_utf8_lossy().into_owned(),
        compressed: frames.iter().map(|(compressed, _)| *compressed).collect(),
        messages: frames.into_iter().map(|(_, message)| message).collect(),
        headers,
    }
}

/// A message as it goes over the wire.
pub(crate) fn framed(message: &[u8], compressed: bool) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(compressed.into());
    frame.put_u32(message.len() as u32);
    frame.put(message);
    frame.freeze()
}

fn unframed(bytes: &mut BytesMut) -> Option<(bool, Bytes)> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize;
    if bytes.len() < 5 + length {
        return None;
    }
    let head = bytes.split_to(5);
    Some((head[0] == 1, bytes.split_to(length).freeze()))
}

/// A question about a model: its name and version.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Named {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

/// A question that says nothing.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Nothing {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InferRequest {
    #[prost(string, tag = "1")]
    pub model_name: String,
    #[prost(string, tag = "2")]
    pub model_version: String,
    #[prost(string, tag = "3")]
    pub id: String,
    #[prost(map = "string, message", tag = "4")]
    pub parameters: HashMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    pub inputs: Vec<Input>,
    #[prost(message, repeated, tag = "6")]
    pub outputs: Vec<Output>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub raw: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Input {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
    #[prost(map = "string, message", tag = "4")]
    pub parameters: HashMap<String, Parameter>,
    #[prost(message, optional, tag = "5")]
    pub contents: Option<Contents>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Output {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(map = "string, message", tag = "2")]
    pub parameters: HashMap<String, Parameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Contents {
    #[prost(int32, repeated, tag = "2")]
    pub ints: Vec<i32>,
    #[prost(float, repeated, tag = "6")]
    pub floats: Vec<f32>,
}

/// A parameter: one of the fields.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Parameter {
    #[prost(bool, optional, tag = "1")]
    pub bool: Option<bool>,
    #[prost(int64, optional, tag = "2")]
    pub int64: Option<i64>,
    #[prost(string, optional, tag = "3")]
    pub string: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InferResponse {
    #[prost(string, tag = "1")]
    pub model_name: String,
    #[prost(string, tag = "2")]
    pub model_version: String,
    #[prost(string, tag = "3")]
    pub id: String,
    #[prost(map = "string, message", tag = "4")]
    pub parameters: HashMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    pub outputs: Vec<Input>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub raw: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StreamResponse {
    #[prost(string, tag = "1")]
    pub error_message: String,
    #[prost(message, optional, tag = "2")]
    pub response: Option<InferResponse>,
}

impl InferResponse {
    pub(crate) fn values(&self, output: usize) -> Vec<f32> {
        self.raw[output].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

/// A request with raw values that is not answered from the cache.
pub(crate) fn raw_request(windows: &[Vec<f32>]) -> InferRequest {
    InferRequest {
        model_name: "cnn_lstm".into(),
        parameters: HashMap::from([("cache".into(), Parameter { bool: Some(false), ..Default::default() })]),
        inputs: vec![Input {
            name: "input".into(),
            datatype: "FP32".into(),
            shape: vec![windows.len() as i64, 50, 60],
            ..Default::default()
        }],
        raw: vec![windows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect()],
        ..Default::default()
    }
}
