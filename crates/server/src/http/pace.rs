//! Connections on which nothing moves are closed: what a slow or silent caller takes is bounded in time. So are those whose
//! caller hangs up before the answer is there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::config::LimitsConfig;

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Between requests.
    Idle,
    /// A request's first bytes came.
    Head,
    /// A request is being answered.
    Answering,
}

const STAGES: [Stage; 3] = [Stage::Idle, Stage::Head, Stage::Answering];

/// Where a connection is, for the stream to know how long it may wait. Known to the connection's own task only.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The number of stages that were left; relaxed, because one task alone reads and writes it.
    steps: AtomicU64,
}

impl Pace {
    fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn stage(&self) -> Stage {
        STAGES[(self.steps() % STAGES.len() as u64) as usize]
    }

    /// Goes on to `stage`, if it is not there.
    fn step_to(&self, stage: Stage) {
        while self.stage() != stage {
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request's headers are there. Its body has a limit of its own.
    pub(super) fn head_is_read(&self) {
        self.step_to(Stage::Answering);
    }

    /// Whether a request's first bytes are there, and not all of its head.
    pub(super) fn is_at_a_head(&self) -> bool {
        self.stage() == Stage::Head
    }

    /// The response is there.
    pub(super) fn is_answered(&self) {
        self.step_to(Stage::Idle);
    }
}

/// How long something is waited for.
#[derive(Debug)]
struct Reading {
    /// The step of the pace.
    step: u64,
    /// When it was first waited in that step.
    since: Instant,
    /// For the end of this step's time, or of an earlier one's.
    alarm: Pin<Box<Sleep>>,
}

/// What can tell that its other end is closed.
pub(super) trait HangUp {
    /// Ready once the other end is closed, if nothing that it sent before is unread. Reads nothing.
    fn poll_hang_up(&self, context: &mut Context<'_>) -> Poll<()>;
}

impl HangUp for TcpStream {
    fn poll_hang_up(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.poll_peek(context, &mut ReadBuf::new(&mut [0])) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

/// A stream that ends with an error where it waits for too long, or where its caller hangs up while being answered.
///
/// hyper would find out about the latter by reading, for which it takes a buffer as large as a request's for each one under
/// way. Here it is told not to, and finds out where it flushes: it does that whenever it has been woken. (The fast path asks.)
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    /// What was read and put back.
    unread: Bytes,
    pace: Arc<Pace>,
    idle: Duration,
    head: Duration,
    write: Duration,
    reading: Option<Reading>,
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, pace: Arc<Pace>, limits: &LimitsConfig) -> Self {
        let (idle, head, write) = (limits.idle_time, limits.header_time, limits.write_time);
        Self { stream, unread: Bytes::new(), pace, idle, head, write, reading: None, writing: None }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Has what was read last be read once more.
    pub(super) fn put_back(&mut self, read: &[u8]) {
        self.unread = Bytes::copy_from_slice(read);
    }

    fn is_out_of_time(&mut self, context: &mut Context<'_>) -> bool {
        let limit = match self.pace.stage() {
            Stage::Idle => self.idle,
            Stage::Head => self.head,
            Stage::Answering => return false,
        };
        let step = self.pace.steps();
        let reading = self.reading.get_or_insert_with(|| {
            let since = Instant::now();
            Reading { step, since, alarm: Box::pin(tokio::time::sleep_until(since + limit)) }
        });
        if reading.step != step {
            (reading.step, reading.since) = (step, Instant::now());
        }
        let due = reading.since + limit;
        // One that is early is put off when it comes, which is seldom, and not with every request.
        if reading.alarm.deadline() > due {
            reading.alarm.as_mut().reset(due);
        }
        while reading.alarm.as_mut().poll(context).is_ready() {
            if reading.alarm.deadline() >= due {
                return true;
            }
            reading.alarm.as_mut().reset(due);
        }
        false
    }

    /// Bounds the time until something could be written.
    fn in_time<T>(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.writing = None;
            return wrote;
        }
        let limit = self.write;
        let sleep = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        sleep.as_mut().poll(context).map(|()| Err(too_slow("the response was not read in time")))
    }
}

fn too_slow(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, text)
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending() {
            return if self.is_out_of_time(context) {
                Poll::Ready(Err(too_slow("no request came in time")))
            } else {
                Poll::Pending
            };
        }
        if buffer.filled().len() > before && self.pace.stage() == Stage::Idle {
            self.pace.step_to(Stage::Head);
        }
        read
    }
}

impl<S: AsyncWrite + HangUp + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.in_time(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if self.pace.stage() == Stage::Answering && self.stream.poll_hang_up(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the caller hung up")));
        }
        self.in_time(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.in_time(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpListener;

    use super::*;

    impl HangUp for DuplexStream {
        fn poll_hang_up(&self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }

    fn limits() -> LimitsConfig {
        let (idle_time, header_time, write_time) =
            (Duration::from_secs(75), Duration::from_secs(10), Duration::from_secs(30));
        LimitsConfig { idle_time, header_time, write_time, ..LimitsConfig::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_ends_after_the_time_for_heads_however_often_a_byte_comes() {
        let (near, mut far) = duplex(64);
        let (pace, start) = (Arc::new(Pace::default()), Instant::now());
        let mut stream = Paced::new(near, Arc::clone(&pace), &limits());
        let reads = async { while stream.read_u8().await.is_ok() {} };
        let drips = async {
            loop {
                far.write_all(b"x").await.expect("room");
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        };
        tokio::select! { () = reads => {}, () = drips => {} }
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_between_requests_has_its_own_limit_and_answering_has_none() {
        let (near, mut far) = duplex(64);
        let pace = Arc::new(Pace::default());
        let mut stream = Paced::new(near, Arc::clone(&pace), &limits());
        far.write_all(b"x").await.expect("room");
        stream.read_u8().await.expect("a byte");
        pace.head_is_read();
        let waited = tokio::time::timeout(Duration::from_secs(3600), stream.read_u8()).await;
        assert!(waited.is_err(), "a request may be computed for long");
        pace.is_answered();
        let start = Instant::now();
        let error = stream.read_u8().await.expect_err("nothing comes");
        assert_eq!((error.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, 75));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_silence_counts_from_the_last_request_and_that_for_a_head_from_its_first_byte() {
        let (near, mut far) = duplex(64);
        let pace = Arc::new(Pace::default());
        let mut stream = Paced::new(near, Arc::clone(&pace), &limits());
        for _ in 0..3 {
            let rest = tokio::time::timeout(Duration::from_secs(50), stream.read_u8()).await;
            assert!(rest.is_err(), "silence may last 75 seconds");
            far.write_all(b"x").await.expect("room");
            stream.read_u8().await.expect("a byte");
            pace.head_is_read();
            pace.is_answered();
        }
        let start = Instant::now();
        assert!(stream.read_u8().await.is_err());
        assert_eq!(start.elapsed().as_secs(), 75);

        let (near, mut far) = duplex(64);
        let mut stream = Paced::new(near, Arc::default(), &limits());
        let rest = tokio::time::timeout(Duration::from_secs(50), stream.read_u8()).await;
        assert!(rest.is_err());
        far.write_all(b"x").await.expect("room");
        stream.read_u8().await.expect("a byte");
        let start = Instant::now();
        assert!(stream.read_u8().await.is_err(), "the rest of the head does not come");
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_nobody_reads_is_given_up() {
        let (near, _far) = duplex(4);
        let start = Instant::now();
        let mut stream = Paced::new(near, Arc::default(), &limits());
        let error = stream.write_all(b"more than four bytes").await.expect_err("nobody reads");
        assert_eq!((error.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
    }

    #[tokio::test]
    async fn a_caller_who_hangs_up_is_noticed_while_being_answered_and_what_was_sent_is_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let far = TcpStream::connect(listener.local_addr().expect("its address")).await.expect("there is room");
        let (near, _) = listener.accept().await.expect("a connection");
        let pace = Arc::new(Pace::default());
        let mut stream = Paced::new(near, Arc::clone(&pace), &limits());
        pace.head_is_read();
        let ends = poll_fn(|context| match Pin::new(&mut stream).poll_flush(context) {
            // It said that all is flushed: that is no news here.
            Poll::Ready(Ok(())) => Poll::Pending,
            other => other,
        });
        let (ended, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(20), ends), async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(far);
        });
        let ended = ended.expect("it is noticed");
        assert_eq!(ended.expect_err("the caller is gone").kind(), io::ErrorKind::ConnectionAborted);
        pace.is_answered();
        stream.flush().await.expect("what is written after the answer says itself that it cannot be");

        let mut far = TcpStream::connect(listener.local_addr().expect("its address")).await.expect("there is room");
        let (near, _) = listener.accept().await.expect("a connection");
        far.write_all(b"the next request").await.expect("there is room");
        near.readable().await.expect("something came");
        let mut stream = Paced::new(near, Arc::clone(&pace), &limits());
        pace.head_is_read();
        stream.flush().await.expect("the caller is there");
        pace.is_answered();
        let mut sent = [0; 16];
        stream.read_exact(&mut sent).await.expect("it is there still");
        assert_eq!(&sent, b"the next request");
    }
}
