//! A kept connection that costs its user next to nothing: requests are bytes, and of a reply only what is needed is read.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An HTTP/1.1 connection for one request at a time.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// The reply that was read last, and nothing else: a server says nothing unasked.
    buffer: Vec<u8>,
}

/// A reply, read whole.
#[derive(Debug)]
pub struct Reply<'a> {
    /// The HTTP status.
    pub status: u16,
    /// Whether the server takes no further request on this connection.
    pub closes: bool,
    /// Whether it says when to come back.
    pub retry_after: bool,
    /// The body.
    pub body: &'a [u8],
}

/// A connection that broke.
#[derive(Debug)]
pub struct Broken {
    /// Whether the whole request had been handed to the system by then.
    pub sent: bool,
    /// How it broke.
    pub error: io::Error,
}

impl Connection {
    /// Connects to `address`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 << 10) })
    }

    /// Sends one request, a whole message, and reads the reply.
    ///
    /// # Errors
    /// When the connection breaks, or what comes back is not HTTP/1.1 with a `Content-Length`.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Reply<'_>, Broken> {
        self.stream.write_all(request).await.map_err(|error| Broken { sent: false, error })?;
        let head = self.read().await.map_err(|error| Broken { sent: true, error })?;
        let Head { status, closes, retry_after, body } = head;
        Ok(Reply { status, closes, retry_after, body: &self.buffer[body] })
    }

    async fn read(&mut self) -> io::Result<Head> {
        self.buffer.clear();
        let head = loop {
            self.read_more().await?;
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break Head::parse(&self.buffer[..end]).ok_or_else(|| {
                    let text = String::from_utf8_lossy(&self.buffer[..end]);
                    io::Error::new(io::ErrorKind::InvalidData, format!("no reply with a length: {text}"))
                })?;
            }
        };
        while self.buffer.len() < head.body.end {
            self.read_more().await?;
        }
        Ok(head)
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Head {
    status: u16,
    closes: bool,
    retry_after: bool,
    /// Where in the message the body lies.
    body: Range<usize>,
}

impl Head {
    /// Reads status line and headers, without the empty line behind them.
    fn parse(head: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(head).ok()?;
        let mut lines = text.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let (mut length, mut closes, mut retry_after) = (None, false, false);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                closes = value.trim().eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("retry-after") {
                retry_after = true;
            }
        }
        let start = head.len() + 4;
        Some(Self { status, closes, retry_after, body: start..start.checked_add(length?)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_head_the_status_the_length_and_whether_it_closes_are_read() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nconnection: Close\r\nContent-Length: 7";
        let head = Head::parse(text).unwrap();
        assert_eq!((head.status, head.closes, head.retry_after), (503, true, false));
        assert_eq!(head.body, text.len() + 4..text.len() + 11);
        let text = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nContent-Length: 0";
        assert!(Head::parse(text).unwrap().retry_after);
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked").is_none());
        assert!(Head::parse(b"HTTP/1.1").is_none());
    }
}
