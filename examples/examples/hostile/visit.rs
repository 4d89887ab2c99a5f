//! One connection of a hostile client, from its first byte to what became of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::attack::{Listener, Manner, Raw};
use crate::frames;

/// A server that does nothing for so long although it should, neither read nor answer nor close, hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// A server that has not said anything for so long, and owes nothing, waits for more.
const QUIET: Duration = Duration::from_millis(50);
/// Between two pieces.
const PAUSE: Duration = Duration::from_millis(1);

/// What a visit came to.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Of the answers that came over HTTP/1.1.
    pub statuses: Vec<u16>,
    pub end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// All answers that had to come came.
    Answered,
    /// The server closed the connection.
    Closed,
    /// The client left.
    Left,
    /// The server did nothing, for too long.
    Hung,
}

/// Connects to `address`, in time, from one of the addresses of this machine, in turn: each has ports of its own, and one alone would
/// run out of them.
pub(crate) async fn connect(address: SocketAddr, number: u64) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 0, 2 + (number % 16) as u8), 0).into())?;
    let stream = timeout(PATIENCE, socket.connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends `raw` over `stream`, and watches what becomes of it.
pub(crate) async fn visit(stream: TcpStream, raw: &Raw) -> Seen {
    let to_head = raw.bytes.starts_with(b"HEAD ");
    let mut visit = Visit { stream, listener: raw.listener, to_head, said: Vec::new() };
    let end = match (visit.send(raw).await, raw.manner) {
        (Err(error), _) if error.kind() == io::ErrorKind::TimedOut => End::Hung,
        // What the server said before it closed may still be there to be read.
        (Err(_), _) => visit.closes().await,
        (Ok(()), Manner::Leaves) => End::Left,
        (Ok(()), Manner::HalfCloses) => visit.good_bye().await,
        (Ok(()), Manner::Waits | Manner::Pieces) => visit.wait(raw.answers).await,
    };
    Seen { statuses: replies(&visit.said, to_head).statuses, end }
}

struct Visit {
    stream: TcpStream,
    listener: Listener,
    /// Whether it is asked by HEAD, so that answers have no bodies.
    to_head: bool,
    /// All that the server said.
    said: Vec<u8>,
}

impl Visit {
    async fn send(&mut self, raw: &Raw) -> io::Result<()> {
        let (mut sent, length) = (0, raw.bytes.len());
        if raw.manner == Manner::Pieces {
            // Where the first header may end, where the second packet may begin, and before the last byte.
            for cut in [1, 24, 67, 1448, length.saturating_sub(1)] {
                if (sent + 1..length).contains(&cut) {
                    self.write(&raw.bytes[sent..cut]).await?;
                    tokio::time::sleep(PAUSE).await;
                    sent = cut;
                }
            }
        }
        self.write(&raw.bytes[sent..]).await
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = timeout(PATIENCE, self.stream.write(bytes)).await??;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Waits for so many answers, and for what else comes.
    async fn wait(&mut self, answers: usize) -> End {
        loop {
            let (came, is_whole) = self.came();
            if answers > 0 && came >= answers && is_whole {
                return End::Answered;
            }
            let patience = if came < answers { PATIENCE } else { QUIET };
            match timeout(patience, self.stream.read_buf(&mut self.said)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return End::Closed,
                Err(_) if came < answers => return End::Hung,
                Err(_) if answers > 0 => return End::Answered,
                Err(_) => return self.good_bye().await,
            }
        }
    }

    /// Says that nothing more comes: there is nothing left that the server could wait for.
    async fn good_bye(&mut self) -> End {
        let _ = self.stream.shutdown().await;
        self.closes().await
    }

    async fn closes(&mut self) -> End {
        loop {
            match timeout(PATIENCE, self.stream.read_buf(&mut self.said)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return End::Closed,
                Err(_) => return End::Hung,
            }
        }
    }

    /// How many answers came, and whether the last of them came to its end.
    fn came(&self) -> (usize, bool) {
        match self.listener {
            Listener::Grpc => (usize::from(frames::is_answered(&self.said)), true),
            Listener::Http | Listener::Metrics | Listener::Admin => {
                let Replies { statuses, is_whole } = replies(&self.said, self.to_head);
                (statuses.len(), is_whole)
            }
        }
    }
}

struct Replies {
    statuses: Vec<u16>,
    /// Whether the last has as long a body as it says.
    is_whole: bool,
}

/// The answers among these bytes, without those that only say to go on. Those `to_head` have no bodies.
fn replies(mut said: &[u8], to_head: bool) -> Replies {
    let mut statuses = Vec::new();
    while let Some(end) = said.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&said[..end]);
        let mut lines = head.split("\r\n");
        let first = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
        let Some(status) = first else { break };
        said = &said[end + 4..];
        if status < 200 {
            continue;
        }
        statuses.push(status);
        if to_head {
            continue;
        }
        let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        match length.and_then(|length| said.get(length..)) {
            Some(rest) => said = rest,
            None => return Replies { statuses, is_whole: false },
        }
    }
    Replies { statuses, is_whole: said.is_empty() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_their_lengths_and_the_word_to_go_on_is_none() {
        let said = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
            HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nx";
        let whole = replies(&[said, &b"y"[..]].concat(), false);
        assert_eq!((whole.statuses, whole.is_whole), (vec![200, 400], true));
        assert!(!replies(said, false).is_whole);
        assert!(replies(b"SSH-2.0\r\n\r\n", false).statuses.is_empty());
    }

    #[test]
    fn answers_to_head_have_no_bodies_whatever_length_they_tell() {
        let said = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n";
        assert_eq!(replies(said, true).statuses, [200, 503]);
    }
}
