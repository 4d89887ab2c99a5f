//! What every connection and every request passes, whichever listener it came to: limits, encryption, who may.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use arc_swap::ArcSwap;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use volley_scheduler::TenantId;
use volley_telemetry::EdgeMetrics;

use super::bodies::{Bodies, Held};
use super::body::RequestBody;
use super::connections::{Connections, Place};
use super::pace::HangUp;
use crate::access::{Caller, Need, Peer};
use crate::error::{ApiError, Cause};
use crate::tls::{self, Tls};
use crate::updates::InForce;

/// What is said to a connection for which there is no place, where it can be said unencrypted.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Length: 113\r\n\r\n\
    {\"error\":\"too many connections; keep fewer open, or raise limits.connections or limits.connections_per_address\"}\n";

/// Room for some of the largest bodies that operators may send.
const OPERATORS_BODY_BYTES: NonZeroUsize = NonZeroUsize::new(16 << 20).expect("it is not zero");

/// Shared by the listeners.
#[derive(Debug)]
pub(crate) struct Gate {
    in_force: Arc<ArcSwap<InForce>>,
    connections: Arc<Connections>,
    requests: Arc<AtomicUsize>,
    bodies: Arc<Bodies>,
    /// What all bodies may take together, where less is configured.
    least_body_bytes: NonZeroUsize,
    tls: Option<Arc<Tls>>,
    rejections: Arc<EdgeMetrics>,
}

/// A connection that has its place, and nothing else yet.
#[derive(Debug)]
pub(crate) struct Arrival {
    stream: TcpStream,
    address: IpAddr,
    place: Place,
}

/// A request that was let in, for as long as it is answered.
#[derive(Debug)]
pub(crate) struct Visit {
    /// The configuration that it sees.
    pub in_force: Arc<InForce>,
    /// Who asks; nobody with a name if none.
    pub caller: Option<Arc<Caller>>,
    /// What there is of its body, if it has one that counts.
    pub held: Option<Arc<Held>>,
    counted: Option<Counted>,
}

impl Visit {
    /// What its request is queued as, if its caller has a name.
    pub(crate) fn tenant(&self) -> Option<TenantId> {
        self.caller.as_ref().map(|caller| caller.tenant)
    }
}

impl Gate {
    /// For connections that are encrypted by `tls`, if it is there.
    pub(crate) fn new(in_force: &Arc<ArcSwap<InForce>>, tls: Option<Arc<Tls>>) -> Self {
        Self {
            in_force: Arc::clone(in_force),
            connections: Arc::default(),
            requests: Arc::default(),
            bodies: Arc::default(),
            least_body_bytes: NonZeroUsize::MIN,
            tls,
            rejections: Arc::new(EdgeMetrics::register()),
        }
    }

    /// For operators, whose connections and requests are counted by themselves: they get in where callers take all there
    /// is, and whatever limits are configured, they can send others.
    pub(crate) fn apart(&self) -> Self {
        Self {
            in_force: Arc::clone(&self.in_force),
            connections: Arc::default(),
            requests: Arc::default(),
            bodies: Arc::default(),
            least_body_bytes: OPERATORS_BODY_BYTES,
            tls: self.tls.clone(),
            rejections: Arc::clone(&self.rejections),
        }
    }

    /// For connections that are encrypted by `tls`, if it is there, and counted with those of this gate.
    pub(crate) fn beside(&self, tls: Option<Arc<Tls>>) -> Self {
        Self {
            in_force: Arc::clone(&self.in_force),
            connections: Arc::clone(&self.connections),
            requests: Arc::clone(&self.requests),
            bodies: Arc::clone(&self.bodies),
            least_body_bytes: self.least_body_bytes,
            tls,
            rejections: Arc::clone(&self.rejections),
        }
    }

    /// The configuration in force.
    pub(crate) fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// The same, for a moment.
    pub(super) fn in_force_now(&self) -> arc_swap::Guard<Arc<InForce>> {
        self.in_force.load()
    }

    /// Takes in a connection that was accepted; `None` if there is no place for it, which it is told where it can be.
    pub(crate) fn enter(&self, stream: TcpStream, address: SocketAddr) -> Option<Arrival> {
        // Without this, a response can wait 40 ms for the caller's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let address = address.ip().to_canonical();
        let Some(place) = self.connections.enter(address, &self.in_force.load().config.limits) else {
            if self.tls.is_none() {
                let _ = stream.try_write(NO_PLACE);
            }
            return None;
        };
        Some(Arrival { stream, address, place })
    }

    /// Encrypts the connection, where that is configured, and says who is at its other end.
    ///
    /// # Errors
    /// When the handshake fails, or takes longer than `limits.header_time`.
    pub(crate) async fn secure(&self, arrival: Arrival) -> io::Result<(Stream, Peer)> {
        let Arrival { stream, address, place } = arrival;
        let Some(tls) = &self.tls else {
            let peer = Peer { address, names: Arc::default() };
            return Ok((Stream { stream: Transport::Plain(stream), _place: place }, peer));
        };
        let limit = self.in_force.load().config.limits.header_time;
        // Boxed, so that connections without TLS have no room for it.
        let stream = tokio::time::timeout(limit, Box::pin(tls.accept(stream))).await??;
        let peer = Peer { address, names: tls::names(&stream) };
        Ok((Stream { stream: Transport::Encrypted(Box::new(stream)), _place: place }, peer))
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// [`ApiError`] with status 401, 403 or 429 for a caller who may not, 503 where too many requests are being answered.
    pub(crate) fn admit(&self, need: Need, headers: &HeaderMap, peer: &Peer) -> Result<Visit, ApiError> {
        let in_force = self.in_force.load_full();
        // Who needs no name is not counted, or nobody's requests would keep out everybody's.
        let counted = (need != Need::Nothing).then(|| Counted::enter(&self.requests));
        let limit = in_force.config.limits.requests.get();
        if counted.as_ref().is_some_and(|counted| counted.number > limit) {
            let message = format!("{limit} requests are being answered; try again, or raise limits.requests");
            let error = ApiError::new(Cause::Unavailable, message);
            self.refused(&error, peer);
            return Err(error);
        }
        let caller = in_force.access.admit(need, headers, peer, Instant::now());
        let caller = caller.inspect_err(|error| self.refused(error, peer))?;
        Ok(Visit { in_force, caller, held: None, counted })
    }

    /// The body of a request that was let in. What arrives of it counts until the visit ends.
    pub(crate) fn body(&self, visit: &mut Visit, incoming: Incoming) -> RequestBody {
        if !incoming.is_end_stream() {
            self.hold_body(visit);
        }
        RequestBody::new(incoming, Some(visit.in_force.config.limits.body_time), visit.held.clone())
    }

    /// Counts what arrives of the body of a request that was let in, until the visit ends, if such are counted.
    pub(crate) fn hold_body(&self, visit: &mut Visit) {
        if visit.counted.is_some() {
            visit.held = Some(Arc::new(self.hold(&visit.in_force)));
        }
    }

    /// The body of a stream of messages, which may take its time, and what there is of the message that is arriving.
    pub(crate) fn stream_body(&self, visit: &Visit, incoming: Incoming) -> (RequestBody, Arc<Held>) {
        let held = Arc::new(self.hold(&visit.in_force));
        (RequestBody::new(incoming, None, Some(Arc::clone(&held))), held)
    }

    /// Counts a message of a stream, of so many bytes, until its visit ends.
    ///
    /// # Errors
    /// [`ApiError`] with status 503 where there is no room for it.
    pub(crate) fn take_message(&self, visit: &mut Visit, bytes: usize) -> Result<(), ApiError> {
        let held = self.hold(&visit.in_force);
        held.take(bytes, 0).inspect_err(|error| self.rejections.request_rejected(error.rejection()))?;
        visit.held = Some(Arc::new(held));
        Ok(())
    }

    fn hold(&self, in_force: &InForce) -> Held {
        self.bodies.hold(in_force.config.limits.body_bytes.max(self.least_body_bytes))
    }

    fn refused(&self, error: &ApiError, peer: &Peer) {
        self.rejections.request_rejected(error.rejection());
        tracing::debug!(address = %peer.address, status = error.status().as_u16(), error = error.message, "not let in");
    }
}

/// One of the requests that are being answered.
#[derive(Debug)]
struct Counted {
    number: usize,
    of: Arc<AtomicUsize>,
}

impl Counted {
    fn enter(of: &Arc<AtomicUsize>) -> Self {
        // Relaxed: a count, on which nothing else hangs.
        Self { number: of.fetch_add(1, Ordering::Relaxed) + 1, of: Arc::clone(of) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.of.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's stream, encrypted or not.
#[derive(Debug)]
pub(crate) struct Stream {
    stream: Transport,
    _place: Place,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Waits until something can be read of a connection that was silent so far, since its handshake if it is encrypted.
    /// Takes no memory for it.
    pub(crate) async fn first_byte(&self) -> io::Result<()> {
        let stream = match &self.stream {
            Transport::Plain(stream) => stream,
            Transport::Encrypted(stream) => match stream.get_ref() {
                // It came with the end of the handshake.
                (_, session) if !session.wants_read() => return Ok(()),
                (stream, _) => stream,
            },
        };
        // Not `readable`, which may be mistaken.
        stream.peek(&mut [0]).await.map(drop)
    }

    /// Whether the other end's farewell is for the stream to read, and cannot be seen from outside.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.stream, Transport::Encrypted(_))
    }

    /// Whether something arrived that nobody has read.
    pub(crate) fn has_byte(&self) -> bool {
        SockRef::from(self.socket()).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|bytes| bytes > 0)
    }

    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Transport::Plain(stream) => stream,
            Transport::Encrypted(stream) => stream.get_ref().0,
        }
    }
}

impl HangUp for Stream {
    fn poll_hang_up(&self, context: &mut Context<'_>) -> Poll<()> {
        self.socket().poll_hang_up(context)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Encrypted(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Encrypted(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Encrypted(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A gate with the limits that there are from the start, for tests.
#[cfg(test)]
pub(super) fn open_gate() -> Gate {
    use crate::access::{Access, Tenants};
    use crate::config::Config;

    let (scheduler, _workers) =
        volley_scheduler::Scheduler::new(volley_scheduler::Config::default(), NonZeroUsize::MIN);
    let config = Config::default();
    let access = Access::of(&config.security, &Tenants::of(scheduler), None, Instant::now());
    Gate::new(&Arc::new(ArcSwap::from_pointee(InForce { config: Arc::new(config), access })), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_to_a_connection_without_a_place_is_as_long_as_it_says() {
        let text = std::str::from_utf8(NO_PLACE).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "the body has {} bytes", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
