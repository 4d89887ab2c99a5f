//! The short way of a plain inference request: read, answered and written without a general implementation of HTTP.
//!
//! Such an implementation keeps buffers and state of each connection, cold by the time of its next request, and builds what
//! no inference needs: a quarter of what it costs to refuse one, a sixth of a cached answer. Here a request is read into
//! memory that the thread's last one was read into, and written from memory that its last response was written from.
//!
//! Only what is as plain as nearly every inference request is taken: HTTP/1.1, a path and headers without anything unusual,
//! a length, one request at a time. What else is there as a whole, such as a question about a model before the first
//! inference, hyper answers from memory. At anything else, such as chunks, what was read is put back, and hyper serves the
//! connection from there on.

use std::cell::RefCell;
use std::future::{poll_fn, ready};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderName, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::bodies::Held;
use super::body::{ended_early, too_slow};
use super::gate::{Gate, Stream};
use super::infer::{Asked, Hot, JSON_LENGTH, NEED, REQUEST_ID, TRACE, Target};
use super::listener::Phase;
use super::pace::{HangUp, Pace, Paced};
use super::received::Received;
use super::reply::Reply;
use crate::access::{API_KEY, Peer};
use crate::config::Config;
use crate::error::ApiError;

/// What is read at a time, and the most that a request has that goes this way: where more is computed, what is saved here is
/// nothing beside it.
const ROOM: usize = 64 << 10;

/// The most headers of a request that goes this way.
const HEADERS: usize = 32;

/// How long a caller may take to send the rest of what was refused.
const LINGER: Duration = Duration::from_secs(1);

/// What an inference request's answer depends on.
const HEEDED: [HeaderName; 7] = [JSON_LENGTH, REQUEST_ID, TRACE, ACCEPT_ENCODING, AUTHORIZATION, API_KEY, ORIGIN];

/// What changes how a request is read.
const UNUSUAL: [&str; 5] = ["transfer-encoding", "expect", "upgrade", "te", "trailer"];

thread_local! {
    /// What was read last.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; ROOM].into());
    /// What was written last.
    static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How the fast path ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// With the connection.
    Closed,
    /// At something that is not for it, and has been put back.
    Unread,
}

/// A plain inference request.
#[derive(Debug)]
struct Plain {
    target: Target,
    /// Those that matter.
    headers: HeaderMap,
    body: BytesMut,
    /// Bytes of its body that did not come with its head.
    missing: usize,
}

/// What came.
#[derive(Debug)]
enum Came {
    Plain(Plain),
    /// A whole request, for something else.
    Whole(Bytes),
    /// What hyper must read on from.
    Other,
    /// Nothing any more.
    End,
}

/// What somebody else answered.
#[derive(Debug)]
pub(super) struct Response {
    bytes: Vec<u8>,
    closes: bool,
}

impl Response {
    /// That of these bytes; nothing more is answered after it if it says so itself, or has not `ended_well`.
    pub(super) fn new(bytes: Vec<u8>, ended_well: bool) -> Self {
        const CLOSE: &[u8] = b"\r\nconnection: close\r\n";
        let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").map_or(bytes.len(), |end| end + 2);
        let says_close = bytes[..head].windows(CLOSE.len()).any(|line| line.eq_ignore_ascii_case(CLOSE));
        Self { closes: says_close || !ended_well || bytes.is_empty(), bytes }
    }
}

/// Answers the requests of a connection.
pub(super) struct FastPath<'a> {
    pub hot: &'a Hot,
    pub gate: &'a Gate,
    pub peer: &'a Peer,
    pub pace: &'a Pace,
}

impl FastPath<'_> {
    /// Answers requests, one after the other, until something comes on `stream` that is not for it, or nothing any more. A
    /// whole request that is not plain is answered by `general`.
    ///
    /// # Errors
    /// When the connection fails, or its caller is too slow.
    pub(super) async fn serve<F: Future<Output = Response>>(
        &self,
        stream: &mut Paced<Stream>,
        phase: &watch::Receiver<Phase>,
        general: impl Fn(Bytes) -> F,
    ) -> io::Result<Left> {
        let mut told = phase.clone();
        let mut closing = pin!(told.wait_for(|phase| *phase == Phase::Closing).map(drop).fuse());
        loop {
            let came = poll_fn(|context| {
                if let Poll::Ready(came) = self.next(stream, context) {
                    return Poll::Ready(came);
                }
                // The system is asked, for the runtime may not have heard of it yet.
                if closing.as_mut().poll(context).is_ready() && !stream.get_ref().has_byte() {
                    return Poll::Ready(Ok(Came::End));
                }
                Poll::Pending
            });
            let (closes, missing) = match came.await? {
                Came::Plain(plain) => {
                    let Some((reply, missing)) = self.answer(stream, plain).await else { return Ok(Left::Closed) };
                    self.pace.is_answered();
                    // What is missing of its body would be taken for the next request.
                    let closes = missing > 0 || reply.closes() || *phase.borrow() > Phase::Serving;
                    write(stream, move |out| reply.write(closes, out)).await?;
                    (closes, missing)
                }
                Came::Whole(request) => {
                    // Boxed, because it is seldom needed.
                    let Some(response) = while_there(stream, Box::pin(general(request))).await else {
                        return Ok(Left::Closed);
                    };
                    let closes = response.closes;
                    write(stream, move |out| out.extend_from_slice(&response.bytes)).await?;
                    (closes, 0)
                }
                Came::Other => return Ok(Left::Unread),
                Came::End => return Ok(Left::Closed),
            };
            if closes {
                stream.shutdown().await?;
                let mut rest = stream.take(missing as u64);
                // Who still sends when the connection closes may never see why.
                let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
                return Ok(Left::Closed);
            }
        }
    }

    /// Reads what there is.
    fn next(&self, stream: &mut Paced<Stream>, context: &mut Context<'_>) -> Poll<io::Result<Came>> {
        READ.with_borrow_mut(|room| {
            let mut read = ReadBuf::new(room);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
            let read = read.filled();
            let came = Came::of(read, &self.gate.in_force_now().config);
            if matches!(came, Came::Other) {
                stream.put_back(read);
            }
            Poll::Ready(Ok(came))
        })
    }

    /// The answer, and what is still missing of the body; nothing, if its caller hangs up meanwhile.
    async fn answer(&self, stream: &mut Paced<Stream>, plain: Plain) -> Option<(Reply, usize)> {
        let received = Received::now();
        self.pace.head_is_read();
        let Plain { target, headers, mut body, mut missing } = plain;
        let mut visit = match self.gate.admit(NEED, &headers, self.peer) {
            Ok(visit) => visit,
            Err(error) => return Some((Reply::refusal(&error), missing)),
        };
        if !body.is_empty() || missing > 0 {
            self.gate.hold_body(&mut visit);
        }
        let limit = visit.in_force.config.limits.body_time;
        let arrived = arrive(stream, &mut body, &mut missing, visit.held.as_deref(), limit).await;
        let body = arrived.map(|()| body.freeze().into());
        // Boxed, so that it is answered in memory that was used just before, and not in the connection's own, which is cold.
        let reply = Box::pin(self.hot.reply(&visit, &target, Asked::of(&headers), received, ready(body)));
        while_there(stream, reply).await.map(|reply| (reply, missing))
    }
}

impl Came {
    /// What it is that begins with what was `read`.
    fn of(read: &[u8], config: &Config) -> Self {
        if read.is_empty() {
            return Self::End;
        }
        Self::request(read, config).unwrap_or(Self::Other)
    }

    fn request(read: &[u8], config: &Config) -> Option<Self> {
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let httparse::Status::Complete(head) = request.parse_with_uninit_headers(read, &mut headers).ok()? else {
            return None;
        };
        let limits = &config.limits;
        if request.version != Some(1)
            || head > limits.header_bytes.get()
            || request.headers.len() > limits.headers.get()
        {
            return None;
        }
        let (mut length, mut is_packed, mut heeded) = (None, false, HeaderMap::new());
        for header in request.headers.iter() {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                if length.is_some() || header.value.len() > 5 || !header.value.iter().all(u8::is_ascii_digit) {
                    return None;
                }
                length = Some(str::from_utf8(header.value).ok()?.parse().ok()?);
            } else if is("connection") && !header.value.eq_ignore_ascii_case(b"keep-alive")
                || UNUSUAL.iter().any(|name| is(name))
            {
                return None;
            } else if is("content-encoding") {
                is_packed = true;
            } else if let Some(name) = HEEDED.into_iter().find(|name| is(name.as_str())) {
                heeded.append(name, HeaderValue::from_bytes(header.value).ok()?);
            }
        }
        let there = &read[head..];
        let missing = length.unwrap_or(0_usize).checked_sub(there.len())?;
        let path = request.path.filter(|path| request.method == Some("POST") && path.bytes().all(is_usual));
        let target = path.and_then(Target::of_path).filter(|_| !is_packed);
        match (target, length) {
            (Some(target), Some(length)) if head + length <= ROOM && length <= config.http.max_body_bytes.get() => {
                let mut body = BytesMut::with_capacity(length);
                body.extend_from_slice(there);
                Some(Self::Plain(Plain { target, headers: heeded, body, missing }))
            }
            _ => (missing == 0 && request.method != Some("CONNECT")).then(|| Self::Whole(Bytes::copy_from_slice(read))),
        }
    }
}

/// What comes of `answer`, unless the caller hangs up meanwhile.
async fn while_there<T>(stream: &Paced<Stream>, mut answer: Pin<Box<impl Future<Output = T>>>) -> Option<T> {
    poll_fn(|context| match answer.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => stream.get_ref().poll_hang_up(context).map(|()| None),
    })
    .await
}

/// Whether a path of such bytes is read everywhere as it is written.
fn is_usual(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~:%".contains(&byte)
}

/// Waits for what is `missing` of a body.
///
/// # Errors
/// [`ApiError`] with status 408 when it takes longer than `limit`, 400 where it ends early, 503 where there is no room for
/// it; some of it may still be missing then.
async fn arrive(
    stream: &mut Paced<Stream>,
    body: &mut BytesMut,
    missing: &mut usize,
    held: Option<&Held>,
    limit: Duration,
) -> Result<(), ApiError> {
    let take = |bytes, missing| held.map_or(Ok(()), |held| held.take(bytes, missing));
    take(body.len(), *missing)?;
    if *missing == 0 {
        return Ok(());
    }
    let rest = async {
        while *missing > 0 {
            match stream.take(*missing as u64).read_buf(body).await.map_err(ended_early)? {
                0 => return Err(ended_early(io::Error::from(io::ErrorKind::UnexpectedEof))),
                came => {
                    *missing -= came;
                    take(came, *missing)?;
                }
            }
        }
        Ok(())
    };
    timeout(limit, rest).await.map_err(|_| too_slow(limit))?
}

/// Sends what `compose` writes.
async fn write<S>(stream: &mut Paced<S>, compose: impl FnOnce(&mut Vec<u8>)) -> io::Result<()>
where
    S: AsyncWrite + HangUp + Unpin,
{
    let mut compose = Some(compose);
    // Nearly always, the system takes all of it at once.
    let rest = poll_fn(|context| {
        WRITTEN.with_borrow_mut(|out| {
            out.clear();
            out.shrink_to(ROOM);
            if let Some(compose) = compose.take() {
                compose(out);
            }
            let written = match Pin::new(&mut *stream).poll_write(context, out) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            Poll::Ready(io::Result::Ok(out[written..].to_vec()))
        })
    });
    let rest = rest.await?;
    stream.write_all(&rest).await
}

/// Whether what was read is taken as plain. What is, hyper must read the same way: as this request, and no other. Nor may it
/// find two requests in what it is given as one.
#[cfg(test)]
pub(crate) fn is_taken_and_read_as_hyper_reads_it(read: &[u8]) -> bool {
    let plain = match Came::of(read, &Config::default()) {
        Came::Plain(plain) => plain,
        Came::Whole(request) => {
            assert_eq!(request, read);
            let seen = read_by_hyper(read);
            let is_one = matches!(&seen[..], [] | [_]) && seen.iter().all(|(.., body)| read.ends_with(body));
            assert!(is_one, "{:?}", read.escape_ascii().to_string());
            return false;
        }
        Came::Other | Came::End => return false,
    };
    let rest = vec![0; plain.missing];
    let seen = read_by_hyper(&[read, &rest].concat());
    let [(target, headers, body)] = &seen[..] else { panic!("{} requests for hyper", seen.len()) };
    assert_eq!(Some(&plain.target), target.as_ref());
    for name in [
        "inference-header-content-length",
        "x-request-id",
        "traceparent",
        "accept-encoding",
        "authorization",
        "x-api-key",
        "origin",
    ] {
        let of = |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(of(&plain.headers), of(headers), "{name}");
    }
    assert_eq!([&plain.body[..], &rest].concat(), body[..]);
    true
}

/// The requests that hyper finds.
#[cfg(test)]
fn read_by_hyper(bytes: &[u8]) -> Vec<(Option<Target>, HeaderMap, Bytes)> {
    use std::convert::Infallible;
    use std::io::Cursor;

    use axum::http::{Request, Response};
    use http_body_util::{BodyExt as _, Empty};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;

    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let seen = RefCell::new(Vec::new());
    runtime.block_on(async {
        let service = service_fn(|request: Request<Incoming>| async {
            let target = Target::of(&request);
            assert!(target.is_none() || super::routes::need(&request) == NEED);
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("it is there").to_bytes();
            seen.borrow_mut().push((target, head.headers, body));
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let stream = TokioIo::new(tokio::io::join(Cursor::new(bytes), tokio::io::sink()));
        // What it cannot read it refuses, and says so.
        let _ = http1::Builder::new().half_close(true).serve_connection(stream, service).await;
    });
    seen.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_whole(bytes: &str) -> bool {
        is_taken_and_read_as_hyper_reads_it(bytes.as_bytes());
        matches!(Came::of(bytes.as_bytes(), &Config::default()), Came::Whole(_))
    }

    #[test]
    fn what_is_there_as_a_whole_is_told_from_what_is_not() {
        let get = "GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n";
        assert!(is_whole(get));
        assert!(is_whole(&get.replace("GET", "HEAD")) && is_whole(&get.replace("GET", "DELETE")));
        assert!(!is_whole(&get.replace("GET", "CONNECT")));
        assert!(!is_whole(&get[..get.len() - 1]) && !is_whole(&format!("{get}{get}")));
        assert!(!is_whole(&get.replace("Host: x", "Connection: close")));
        let post = "POST /v2/models/net/infer?x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        assert!(
            is_whole(post)
                && is_whole(&post.replace("?x", "").replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n"))
        );
        assert!(!is_whole(&post[..post.len() - 1]) && !is_whole(&format!("{post}d")));
    }

    #[test]
    fn a_response_that_ends_its_connection_is_known_by_its_head() {
        let closes = |bytes: &[u8]| Response::new(bytes.to_vec(), true).closes;
        assert!(closes(b"HTTP/1.1 200 OK\r\na: b\r\nConnection: close\r\n\r\n"));
        assert!(closes(b"HTTP/1.1 200 OK\r\nconnection: close\r\na: b\r\n\r\nbody"));
        let lasts = b"HTTP/1.1 200 OK\r\na: b\r\n\r\n\r\nconnection: close\r\n";
        assert!(!closes(lasts));
        assert!(Response::new(lasts.to_vec(), false).closes && closes(b""), "hyper gave up");
    }

    #[tokio::test]
    async fn what_the_system_does_not_take_at_once_follows() {
        let (near, mut far) = tokio::io::duplex(5);
        let mut stream = Paced::new(near, std::sync::Arc::default(), &Config::default().limits);
        let long: Vec<u8> = (0..2 * ROOM as u32).map(|i| i.to_le_bytes()[0]).collect();
        for text in [&long[..], b"short", b""] {
            let mut read = vec![0; text.len()];
            let reads = far.read_exact(&mut read);
            let (wrote, all) = tokio::join!(write(&mut stream, |out| out.extend_from_slice(text)), reads);
            assert!(wrote.is_ok() && all.is_ok() && read == text);
        }
        drop(far);
        assert!(write(&mut stream, |out| out.push(0)).await.is_err());
    }

    fn taken(head: &str, body: &[u8]) -> bool {
        is_taken_and_read_as_hyper_reads_it(&[head.as_bytes(), body].concat())
    }

    #[test]
    fn what_is_plain_is_taken_and_nothing_else() {
        let plain = "POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nContent-Length: 3\r\n";
        let with = |more: &str| format!("{plain}{more}\r\n");
        assert!(taken(&with(""), b"abc"));
        assert!(taken(&with(""), b"a"), "the rest is still to come");
        assert!(taken(&with("connection: Keep-Alive\r\nX-API-KEY: k\r\nTraceParent: t\r\n"), b"abc"));
        assert!(taken(&with("").replace("net/infer", "a%20b/versions/3/infer"), b"abc"));
        assert!(taken(&with("").replace("/v2/models/net/infer", "/v1/models/net:predict"), b"abc"));
        assert!(!taken(&with(""), b"abcP"), "another comes after it");
        assert!(!taken(plain, b""), "its head is not whole");
        for more in [
            "Connection: close\r\n",
            "Connection: upgrade\r\n",
            "Upgrade: h2c\r\n",
            "Expect: 100-continue\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Content-Encoding: gzip\r\n",
            "Content-Length: 3\r\n",
            "X-API-KEY: \x01\r\n",
            " folded\r\n",
        ] {
            assert!(!taken(&with(more), b"abc"), "{more}");
        }
        for (other, instead) in [
            ("POST", "GET"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("/infer", "/ready"),
            ("net/infer", "net/infer?x"),
            ("/v2/models", "http://x/v2/models"),
            ("Length: 3", "Length: +3"),
            ("Length: 3", "Length: 3, 3"),
            ("Length: 3", "Length: 99999"),
            ("Content-Length: 3\r\n", ""),
        ] {
            assert!(!taken(&with("").replacen(other, instead, 1), b"abc"), "{instead}");
        }
        assert!(taken(&with(&"X: y\r\n".repeat(HEADERS - 3)), b"abc"));
        assert!(!taken(&with(&"X: y\r\n".repeat(HEADERS - 2)), b"abc"), "there are many headers");
        let long = plain.replace("Length: 3", &format!("Length: {ROOM}")) + "\r\n";
        assert!(!taken(&long, b"abc"), "it has no room");
    }

    #[test]
    fn what_is_too_much_for_the_limits_is_left_to_hyper() {
        let request = b"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        let count = |count| std::num::NonZeroUsize::new(count).expect("not zero");
        let mut config = Config::default();
        let taken = |config: &Config| matches!(Came::of(request, config), Came::Plain(_));
        (config.limits.headers, config.limits.header_bytes) = (count(2), count(request.len() - 3));
        config.http.max_body_bytes = count(3);
        assert!(taken(&config));
        assert!(!taken(&Config {
            http: crate::config::HttpConfig { max_body_bytes: count(2), ..config.http.clone() },
            ..config.clone()
        }));
        config.limits.headers = count(1);
        assert!(!taken(&config));
        (config.limits.headers, config.limits.header_bytes) = (count(2), count(request.len() - 4));
        assert!(!taken(&config));
    }
}
