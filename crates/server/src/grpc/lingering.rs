//! Closing a connection without taking back what was said on it.
//!
//! A system that closes a connection on which something came that nobody has read resets it, and a caller who is still
//! sending, a long stream's next message say, then hears of the reset and may never look at the answers that came before it.
//! So this end says that it is done, and reads and throws away what comes until the other end is done as well: the
//! lingering close of RFC 9112, section 9.6, which holds for HTTP/2 as it does there.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A stream that is closed when its other end has closed, or `patience` after this one.
#[derive(Debug)]
pub(super) struct Lingering<S> {
    stream: S,
    patience: Duration,
    /// Running since this end is closed.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, until: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.until.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let patience = this.patience;
        let until = this.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        let mut thrown_away = [0; 4096];
        loop {
            if until.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut into = ReadBuf::new(&mut thrown_away);
            // One that was reset has closed, too.
            if ready!(Pin::new(&mut this.stream).poll_read(context, &mut into)).is_err() || into.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn who_is_still_sending_reads_what_was_said_before_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let mut caller = TcpStream::connect(address).await.expect("somebody listens");
        let (stream, _) = listener.accept().await.expect("a caller");
        caller.write_all(&[7; 10_000]).await.expect("there is room");
        let closing = tokio::spawn(async move {
            let mut stream = Lingering::new(stream, PATIENCE);
            stream.write_all(b"enough").await.expect("open");
            stream.shutdown().await.expect("it can be closed");
        });
        let mut said = [0; 6];
        caller.read_exact(&mut said).await.expect("something is said");
        assert_eq!(caller.read(&mut [0]).await.expect("the end, and no reset"), 0);
        caller.write_all(&[7; 10_000]).await.expect("it is taken and thrown away");
        drop(caller);
        closing.await.expect("it does not panic");
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_closes_is_left_in_the_end_whatever_he_sends() {
        let (near, mut far) = tokio::io::duplex(64);
        let start = Instant::now();
        let sends = async {
            while far.write_all(b"and another thing").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let closes = async {
            let mut stream = Lingering::new(near, PATIENCE);
            stream.shutdown().await.expect("it can be closed");
        };
        tokio::select! { () = sends => panic!("nobody reads"), () = closes => {} }
        assert_eq!(start.elapsed().as_secs(), PATIENCE.as_secs());
    }
}
