//! A bare gRPC server that answers any call with so many bytes: what the edge alone costs.
//!
//! ```sh
//! cargo run --release -p volley-examples --example grpc_echo -- 700
//! ```
//!
//! The same hyper and tonic as Volley's, one thread, and nothing in it: a message is taken as it came, and dropped. It prints
//! its address, and runs until its standard input ends.

use std::convert::Infallible;
use std::error::Error;
use std::future::ready;
use std::io::{Read as _, Write as _, stdout};

use bytes::{Buf, BufMut, Bytes};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::Grpc;

fn main() -> Result<(), Box<dyn Error>> {
    let length: usize = std::env::args().nth(1).ok_or("usage: grpc_echo BYTES")?.parse()?;
    // Ends with the benchmark that started it, however that ends.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(Bytes::from(vec![0; length])))
}

async fn serve(answer: Bytes) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(stdout(), "{}", listener.local_addr()?)?;
    let http = http2::Builder::new(TokioExecutor::new());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = answer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer.clone();
            async move {
                let call = tower::service_fn(|_: tonic::Request<Bytes>| {
                    ready(Ok::<_, Status>(tonic::Response::new(answer.clone())))
                });
                Ok::<_, Infallible>(Grpc::new(Untouched).unary(call, request).await)
            }
        });
        tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
    }
}

/// Messages as the bytes they are.
#[derive(Debug, Clone, Copy)]
struct Untouched;

impl Codec for Untouched {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Untouched {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Untouched {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
