//! The short way of a plain inference request: read, answered and written without a general implementation of HTTP.
//!
//! Saturated with small requests, that implementation took a tenth of a core: it keeps buffers and state of each connection,
//! cold by the time of its next request, and builds what no inference needs. Here a request is read into memory that the
//! thread's last one was read into, and written from memory that its last response was written from.
//!
//! Only what is as plain as nearly every inference request is taken: HTTP/1.1, a path and headers without anything unusual,
//! a length, one request at a time. Whatever else comes is put back unread, and hyper serves the connection from there on.

use std::cell::RefCell;
use std::future::{poll_fn, ready};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderName, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};
use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::bodies::Held;
use super::body::{ended_early, too_slow};
use super::gate::{Gate, Stream};
use super::infer::{Asked, Hot, JSON_LENGTH, NEED, REQUEST_ID, TRACE, Target};
use super::listener::Phase;
use super::pace::{HangUp as _, Pace, Paced};
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

/// What an inference request's answer depends on.
const HEEDED: [HeaderName; 7] = [JSON_LENGTH, REQUEST_ID, TRACE, ACCEPT_ENCODING, AUTHORIZATION, API_KEY, ORIGIN];

/// What changes how a request is read.
const UNUSUAL: [&str; 6] = ["transfer-encoding", "content-encoding", "expect", "upgrade", "te", "trailer"];

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
enum Came {
    Plain(Plain),
    Other,
    /// Nothing any more.
    End,
}

/// Answers the requests of a connection.
pub(super) struct FastPath<'a> {
    pub hot: &'a Hot,
    pub gate: &'a Gate,
    pub peer: &'a Peer,
    pub pace: &'a Pace,
}

impl FastPath<'_> {
    /// Answers plain inference requests, one after the other, until something else comes on `stream`, or nothing any more.
    ///
    /// # Errors
    /// When the connection fails, or its caller is too slow.
    pub(super) async fn serve(&self, stream: &mut Paced<Stream>, phase: &watch::Receiver<Phase>) -> io::Result<Left> {
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
            let plain = match came.await? {
                Came::Plain(plain) => plain,
                Came::Other => return Ok(Left::Unread),
                Came::End => return Ok(Left::Closed),
            };
            let Some(reply) = self.answer(stream, plain).await else { return Ok(Left::Closed) };
            let closes = reply.closes() || *phase.borrow() > Phase::Serving;
            self.pace.is_answered();
            write(stream, &reply, closes).await?;
            if closes {
                poll_fn(|context| Pin::new(&mut *stream).poll_shutdown(context)).await?;
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
            let came = match Plain::of(read, &self.gate.in_force().config) {
                Some(plain) => Came::Plain(plain),
                None if read.is_empty() => Came::End,
                None => {
                    stream.put_back(read);
                    Came::Other
                }
            };
            Poll::Ready(Ok(came))
        })
    }

    /// Nothing, if its caller hangs up meanwhile.
    async fn answer(&self, stream: &mut Paced<Stream>, plain: Plain) -> Option<Reply> {
        let received = Received::now();
        self.pace.head_is_read();
        let Plain { target, headers, body, missing } = plain;
        let mut visit = match self.gate.admit(NEED, &headers, self.peer) {
            Ok(visit) => visit,
            Err(error) => {
                let limit = self.gate.in_force().config.limits.body_time;
                // Who still sends when the connection closes would never see why.
                let read_on = arrived(stream, BytesMut::new(), missing, None, limit).await;
                return Some(Reply::refusal(&read_on.err().unwrap_or(error)));
            }
        };
        if !body.is_empty() || missing > 0 {
            self.gate.hold_body(&mut visit);
        }
        let body = arrived(stream, body, missing, visit.held.as_deref(), visit.in_force.config.limits.body_time).await;
        let body = body.map(|body| body.freeze().into());
        // Boxed, so that it is answered in memory that was used just before, and not in the connection's own, which is cold.
        let mut reply = Box::pin(self.hot.reply(&visit, &target, Asked::of(&headers), received, ready(body)));
        poll_fn(|context| match reply.as_mut().poll(context) {
            Poll::Ready(reply) => Poll::Ready(Some(reply)),
            Poll::Pending => stream.get_ref().poll_hang_up(context).map(|()| None),
        })
        .await
    }
}

impl Plain {
    /// The request that begins with what was `read`, if it is plain, and nothing comes after it.
    fn of(read: &[u8], config: &Config) -> Option<Self> {
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let httparse::Status::Complete(head) = request.parse_with_uninit_headers(read, &mut headers).ok()? else {
            return None;
        };
        let limits = &config.limits;
        let path = request.path.filter(|path| path.bytes().all(is_usual))?;
        if request.method != Some("POST")
            || request.version != Some(1)
            || head > limits.header_bytes.get()
            || request.headers.len() > limits.headers.get()
        {
            return None;
        }
        let target = Target::of_path(path)?;
        let mut length = None;
        let mut heeded = HeaderMap::new();
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
            } else if let Some(name) = HEEDED.into_iter().find(|name| is(name.as_str())) {
                heeded.append(name, HeaderValue::from_bytes(header.value).ok()?);
            }
        }
        let (length, there): (usize, _) = (length?, &read[head..]);
        let missing = length.checked_sub(there.len())?;
        if head + length > ROOM || length > config.http.max_body_bytes.get() {
            return None;
        }
        let mut body = BytesMut::with_capacity(length);
        body.extend_from_slice(there);
        Some(Self { target, headers: heeded, body, missing })
    }
}

/// Whether a path of such bytes is read everywhere as it is written.
fn is_usual(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~:%".contains(&byte)
}

/// The whole of a body of which `missing` bytes are still to come. What comes of one that is not `held` is thrown away.
///
/// # Errors
/// [`ApiError`] with status 408 when it takes longer than `limit`, 400 where it ends early, 503 where there is no room for
/// it; the last when it is read to its end.
async fn arrived(
    stream: &mut Paced<Stream>,
    mut body: BytesMut,
    mut missing: usize,
    held: Option<&Held>,
    limit: Duration,
) -> Result<BytesMut, ApiError> {
    let mut room = held.map_or(Ok(()), |held| held.take(body.len(), missing));
    if missing > 0 {
        let rest = async {
            while missing > 0 {
                let read = poll_fn(|context| {
                    READ.with_borrow_mut(|there| {
                        let mut read = ReadBuf::new(&mut there[..missing]);
                        ready!(Pin::new(&mut *stream).poll_read(context, &mut read)).map_err(ended_early)?;
                        let read = read.filled();
                        if let (Ok(()), Some(held)) = (&room, held) {
                            room = held.take(read.len(), missing - read.len());
                            body.extend_from_slice(read);
                        }
                        Poll::Ready(Ok::<_, ApiError>(read.len()))
                    })
                });
                match read.await? {
                    0 => return Err(ended_early(io::ErrorKind::UnexpectedEof)),
                    read => missing -= read,
                }
            }
            Ok(())
        };
        timeout(limit, rest).await.map_err(|_| too_slow(limit))??;
    }
    room.map(|()| body)
}

async fn write(stream: &mut Paced<Stream>, reply: &Reply, closes: bool) -> io::Result<()> {
    let mut write = |bytes: &[u8], context: &mut Context<'_>| Pin::new(&mut *stream).poll_write(context, bytes);
    // Nearly always, the system takes all of it at once.
    let rest = poll_fn(|context| {
        WRITTEN.with_borrow_mut(|out| {
            out.clear();
            out.shrink_to(ROOM);
            reply.write(closes, out);
            let written = match write(out, context) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            Poll::Ready(io::Result::Ok(out[written..].to_vec()))
        })
    });
    let rest = rest.await?;
    let mut left = &rest[..];
    while !left.is_empty() {
        match poll_fn(|context| write(left, context)).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => left = &left[written..],
        }
    }
    Ok(())
}

/// Whether what was read is taken here. What is, hyper must read the same way: as this request, and no other.
#[cfg(test)]
pub(crate) fn is_taken_and_read_as_hyper_reads_it(read: &[u8]) -> bool {
    use std::convert::Infallible;

    use axum::http::{Request, Response};
    use http_body_util::{BodyExt as _, Empty};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt as _;

    let Some(Plain { target, headers, body, missing }) = Plain::of(read, &Config::default()) else { return false };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let seen = RefCell::new(Vec::new());
    runtime.block_on(async {
        let (near, mut far) = tokio::io::duplex(4 * ROOM);
        far.write_all(&[read, &vec![0; missing]].concat()).await.expect("there is room");
        far.shutdown().await.expect("it is open");
        let service = service_fn(|request: Request<Incoming>| async {
            let target = Target::of(&request);
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("it is there").to_bytes();
            seen.borrow_mut().push((target, head.headers, body));
            Ok::<_, Infallible>(Response::new(Empty::<bytes::Bytes>::new()))
        });
        let served = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(near), service).await;
        assert!(served.is_ok(), "{served:?} of {:?}", read.escape_ascii().to_string());
    });
    let seen = seen.into_inner();
    let [(also, all, whole)] = &seen[..] else { panic!("{} requests for hyper", seen.len()) };
    assert_eq!(Some(&target), also.as_ref());
    for name in HEEDED {
        let of = |headers: &HeaderMap| headers.get_all(&name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(of(&headers), of(all), "{name}");
    }
    assert_eq!([&body[..], &vec![0; missing]].concat(), whole[..]);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let taken = |config: &Config| Plain::of(request, config).is_some();
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
