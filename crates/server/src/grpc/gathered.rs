//! One write for all that is ready to be written.
//!
//! Where a stream takes several slices at once, h2 has it write a message of 256 bytes and more by itself, for each call:
//! to one that does not, it copies messages of up to a thousand bytes behind each other, a batch's answers among them. The
//! larger ones come as a head and a message. They are put together here, so that each flush is one call of the system.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that wait for a flush at most.
const MOST: usize = 64 * 1024;

/// A stream that is written to when it is flushed.
#[derive(Debug)]
pub(super) struct Gathered<S> {
    stream: S,
    /// Not written yet, from `written` on.
    held: Vec<u8>,
    written: usize,
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, held: Vec::new(), written: 0 }
    }

    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            let wrote = ready!(Pin::new(&mut self.stream).poll_write(context, &self.held[self.written..]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += wrote;
        }
        // A quiet connection holds no memory for what it does not write.
        self.held = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.held.len() + bytes.len() > MOST {
            ready!(self.poll_write_out(context))?;
        }
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_written_between_flushes_arrives_together_and_in_order() {
        let (mut other, stream) = duplex(1 << 20);
        let mut stream = Gathered::new(stream);
        assert!(!stream.is_write_vectored(), "or h2 would not put answers together");
        stream.write_all(b"one ").await.expect("open");
        stream.write_all(b"two").await.expect("open");
        let mut read = [0; 64];
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), other.read(&mut read)).await.is_err());
        stream.flush().await.expect("open");
        let length = other.read(&mut read).await.expect("open");
        assert_eq!(&read[..length], b"one two");
        assert_eq!(stream.held.capacity(), 0);
    }

    #[tokio::test]
    async fn more_than_the_other_end_takes_at_once_is_not_lost_and_does_not_pile_up() {
        let (mut other, stream) = duplex(1000);
        let sent: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            let mut stream = Gathered::new(stream);
            for piece in sent.chunks(4097) {
                stream.write_all(piece).await.expect("open");
                assert!(stream.held.len() <= MOST);
            }
            stream.shutdown().await.expect("open");
        });
        let mut read = Vec::new();
        other.read_to_end(&mut read).await.expect("open");
        writing.await.expect("it does not panic");
        assert!(read == expected, "{} bytes of {} arrived as they were", read.len(), expected.len());
    }
}
