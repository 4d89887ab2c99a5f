//! Bytes without regard to what they mean: altered, cut, doubled, or from nowhere.

use crate::attack::Listener;
use crate::dice::Dice;
use crate::frames::PREFACE;
use crate::good::Good;

/// The first bytes of a TLS client: a handshake record with a hello in it.
const TLS_HELLO: &[u8] =
    b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03volley's hostile client says hello.\x00\x00\x02\x13\x01\x01\x00\x00";

/// Whom to send what.
pub(crate) fn draw(good: &Good, dice: &mut Dice) -> (Listener, Vec<u8>) {
    let usual = [Listener::Http, Listener::Grpc, Listener::Metrics, Listener::Admin];
    let anybody = usual[dice.below(usual.len())];
    match dice.below(16) {
        0 => {
            let count = dice.below(4096);
            (anybody, dice.bytes(count))
        }
        1 => (anybody, damaged(TLS_HELLO, dice)),
        2 => (Listener::Http, damaged(&good.http2, dice)),
        3 => (Listener::Http, [PREFACE, &good.http[dice.below(good.http.len())]].concat()),
        4 => (Listener::Grpc, good.http[dice.below(good.http.len())].clone()),
        5..8 => (Listener::Grpc, damaged(&good.http2, dice)),
        _ => {
            let listener = if dice.one_in(16) { anybody } else { Listener::Http };
            (listener, damaged(&good.http[dice.below(good.http.len())], dice))
        }
    }
}

/// Whether there is a request over HTTP/1.1 at the beginning that no server can still wait for. Not all that are whole are
/// seen to be.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else { return false };
    let mut lines = head.split("\r\n");
    let is_request = lines.next().is_some_and(|line| {
        ["GET /", "POST /"].iter().any(|start| line.starts_with(start)) && line.ends_with(" HTTP/1.1")
    });
    let mut lengths = lines.clone().filter_map(|line| line.strip_prefix("Content-Length: "));
    let length = lengths.next().and_then(|length| length.parse::<usize>().ok());
    let says_more = lengths.next().is_some() || lines.any(|line| line.to_ascii_lowercase().contains("encoding"));
    is_request && !says_more && length.is_some_and(|length| bytes.len() - end - 4 >= length)
}

fn damaged(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    const TOKENS: [&[u8]; 10] =
        [b"{", b"[[", b"]", b"\"", b"1e999", b"null", b"\xff\xff\xff\xff\x0f", b"\\ud800", b"\r\n", b"\0"];
    let mut bytes = bytes.to_vec();
    for _ in 0..=dice.below(4) {
        // Half of the time in the head, which is short beside the body.
        let within = if dice.one_in(2) { bytes.len().min(256) } else { bytes.len() };
        let at = dice.below(within + 1);
        match dice.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.splice(at..at, dice.pick(&TOKENS).iter().copied())),
            2 => {
                let end = (at + dice.below(16)).min(bytes.len());
                drop(bytes.drain(at..end));
            }
            3 => {
                let from = dice.below(bytes.len() + 1);
                let piece = bytes[from..(from + dice.below(64)).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            4 => {
                let whole = bytes.clone();
                drop(bytes.splice(at..at, whole));
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_if_its_one_length_is_there_and_nothing_else_is_said_about_its_end() {
        let whole = |lines: &str, body: &str| is_whole(format!("POST /x HTTP/1.1\r\n{lines}\r\n{body}").as_bytes());
        assert!(whole("Content-Length: 2\r\n", "ab"));
        assert!(whole("Content-Length: 2\r\n", "abGET /"));
        assert!(!whole("Content-Length: 3\r\n", "ab"));
        assert!(!whole("Content-Length: -1\r\n", "ab"));
        assert!(!whole("Content-Length: 2\r\nContent-Length: 20\r\n", "ab"));
        assert!(!whole("Content-Length: 2\r\ntransfer-encoding: chunked\r\n", "ab"));
        assert!(!whole("", "ab"));
        assert!(!is_whole(b"POST /x HTTP/1.1\r\nContent-Length: 0\r\n"));
    }
}
