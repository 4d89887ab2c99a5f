//! A server that reads a request whole and answers with as many bytes as it was told to: what hyper costs by itself.

use std::error::Error;
use std::io::{Write as _, stdout};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Serves on a free port, printed as the only line, until the process is ended.
pub(crate) fn serve(reply: usize) -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(stdout(), "{}", listener.local_addr()?)?;
        let reply = Bytes::from(vec![b'x'; reply]);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let reply = reply.clone();
            let answer = move |request: Request<Incoming>| {
                let reply = reply.clone();
                async move {
                    request.into_body().collect().await?;
                    Ok::<_, hyper::Error>(Response::new(Full::new(reply)))
                }
            };
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    })
}
