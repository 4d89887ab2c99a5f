//! gRPC calls in a closed loop: messages encoded once, over hyper's bare HTTP/2.

use std::cell::RefCell;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, TE};
use hyper::{Method, Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use volley_examples::{programs, stay_awake};
use volley_validate::usage::ProcessUsage;

use super::SERVER_CORE;

const CONNECTIONS: usize = 8;

/// Calls of `ModelInfer`, and to whom.
#[derive(Clone)]
pub(crate) struct Calls {
    pub address: SocketAddr,
    /// Messages with their prefixes, sent in turn.
    pub frames: Rc<[Bytes]>,
    pub duration: Duration,
    /// The server's process, if its processor time is to be read.
    pub process: Option<u32>,
}

/// What was measured.
pub(crate) struct Called {
    pub per_second: f64,
    pub server_cpu: Option<Duration>,
}

impl Calls {
    /// Bytes of the first message's answer, with its prefix.
    pub(crate) async fn reply_bytes(&self) -> Result<usize, Box<dyn Error>> {
        let mut sender = self.connect().await?;
        self.call(&mut sender, &self.frames[0]).await
    }

    /// Keeps `under_way` calls under way, over eight connections. Ends with the first call that fails.
    pub(crate) async fn closed(&self, under_way: usize) -> Result<Called, Box<dyn Error>> {
        let reply_bytes = self.reply_bytes().await?;
        let begin = Instant::now() + Duration::from_millis(500);
        let end = begin + self.duration;
        let answered = Rc::new(RefCell::new(0_u64));
        let failure = Rc::new(RefCell::new(None));
        let tasks = LocalSet::new();
        let mut senders = Vec::new();
        for _ in 0..CONNECTIONS {
            senders.push(self.connect().await?);
        }
        tasks.spawn_local(stay_awake(end));
        for (index, sender) in (0..under_way).zip(senders.iter().cycle()) {
            let (calls, mut sender) = (self.clone(), sender.clone());
            let (answered, failure) = (Rc::clone(&answered), Rc::clone(&failure));
            tasks.spawn_local(async move {
                for frame in calls.frames.iter().cycle().skip(index) {
                    match calls.call(&mut sender, frame).await {
                        Ok(length) if length == reply_bytes => {}
                        Ok(length) => {
                            failure.replace(Some(format!("{length} bytes instead of {reply_bytes}")));
                        }
                        Err(error) => {
                            failure.replace(Some(error.to_string()));
                        }
                    }
                    let now = Instant::now();
                    if now >= end || failure.borrow().is_some() {
                        break;
                    }
                    *answered.borrow_mut() += u64::from(now >= begin);
                }
            });
        }
        let cpu = || self.process.map(ProcessUsage::of).transpose().map(|usage| usage.map(|usage| usage.cpu));
        let watched = async {
            tokio::time::sleep_until(begin.into()).await;
            let before = cpu()?;
            tokio::time::sleep_until(end.into()).await;
            Ok::<_, std::io::Error>(cpu()?.zip(before).map(|(after, before)| after.saturating_sub(before)))
        };
        let server_cpu = tasks.run_until(watched).await?;
        tasks.await;
        match failure.take() {
            Some(failure) => Err(format!("a call failed: {failure}").into()),
            None => Ok(Called { per_second: answered.take() as f64 / self.duration.as_secs_f64(), server_cpu }),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Box<dyn Error>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// One call; the bytes of its answer.
    async fn call(&self, sender: &mut SendRequest<Full<Bytes>>, frame: &Bytes) -> Result<usize, Box<dyn Error>> {
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://{}/inference.GRPCInferenceService/ModelInfer", self.address))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(Full::new(frame.clone()))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let head = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await?;
        let status = head.or_else(|| body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned());
        if status.as_ref().is_none_or(|status| status != "0") {
            return Err(format!("gRPC status {status:?}").into());
        }
        Ok(body.to_bytes().len())
    }
}

/// The bare server that the calls are also put to; ended when dropped.
pub(crate) struct Echo {
    child: Child,
    pub address: SocketAddr,
}

impl Echo {
    /// Starts it on the server's core, with answers of `bytes` bytes, prefix included.
    pub(crate) fn start(bytes: usize) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &SERVER_CORE.to_string()]).arg(programs()?.join("examples/grpc_echo"));
        command.arg(bytes.saturating_sub(5).to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("stdout is piped")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()? })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
