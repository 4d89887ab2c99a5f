//! What is sent on one connection, and how.

use crate::dice::Dice;
use crate::frames;
use crate::good::Good;
use crate::{blind, protobuf, request};

/// One visit of a hostile client.
#[derive(Debug)]
pub(crate) enum Attack {
    /// Bytes on a connection of their own.
    Bytes(Raw),
    /// A call over HTTP/2 that is well made, on a kept connection, with something wrong in it.
    Call(Call),
}

/// Who listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    Http,
    Grpc,
    Metrics,
    Admin,
}

#[derive(Debug)]
pub(crate) struct Raw {
    pub listener: Listener,
    pub bytes: Vec<u8>,
    pub manner: Manner,
    /// Answers that have to come unless the connection is closed: there are so many whole requests in it.
    pub answers: usize,
}

/// How the client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Sends everything, and waits for what comes.
    Waits,
    /// Sends it in pieces, cut where nobody would.
    Pieces,
    /// Says that it will send no more as soon as it has sent everything, and waits.
    HalfCloses,
    /// Closes without having read anything.
    Leaves,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub path: &'static str,
    pub headers: Vec<(&'static str, &'static str)>,
    /// Whether each message in the body is as long as its prefix says, and not compressed.
    pub is_framed: bool,
    pub body: Vec<u8>,
}

impl Attack {
    /// The attack of this number: of even numbers structured ones, of odd ones blind ones.
    pub(crate) fn draw(good: &Good, dice: &mut Dice, number: u64) -> Self {
        let manner = match dice.below(16) {
            0 => Manner::Leaves,
            1 => Manner::HalfCloses,
            2 | 3 => Manner::Pieces,
            _ => Manner::Waits,
        };
        let (listener, bytes, mut answers) = match number % 2 {
            0 => match dice.below(12) {
                0 | 1 => return Self::Call(call(good, dice)),
                2 => {
                    let (bytes, is_whole) = frames::draw(&good.message, dice);
                    (Listener::Grpc, bytes, usize::from(is_whole))
                }
                _ => request::draw(good, dice),
            },
            _ => {
                let (listener, bytes) = blind::draw(good, dice);
                let is_whole = listener != Listener::Grpc && blind::is_whole(&bytes);
                (listener, bytes, usize::from(is_whole))
            }
        };
        if matches!(manner, Manner::HalfCloses | Manner::Leaves) {
            answers = 0;
        }
        Self::Bytes(Raw { listener, bytes, manner, answers })
    }
}

/// Parts of a call that are wrong, one at a time or several.
fn call(good: &Good, dice: &mut Dice) -> Call {
    const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
    let path = match dice.below(4) {
        0 => dice.pick(&[
            "/inference.GRPCInferenceService/ModelStreamInfer",
            "/inference.GRPCInferenceService/ModelReady",
            "/inference.GRPCInferenceService/ModelMetadata",
            "/inference.GRPCInferenceService/ModelStatistics",
            "/inference.GRPCInferenceService/RepositoryIndex",
            "/inference.GRPCInferenceService/ServerLive",
            "/inference.GRPCInferenceService/SystemSharedMemoryStatus",
            "/grpc.health.v1.Health/Check",
            "/inference.GRPCInferenceService/",
            "/",
            "/v2/models/cnn_lstm/infer",
        ]),
        _ => INFER,
    };
    let mut headers = vec![("content-type", "application/grpc"), ("te", "trailers")];
    if dice.one_in(4) {
        headers.push(match dice.below(12) {
            0 => ("grpc-timeout", "1n"),
            1 => ("grpc-timeout", "99999999H"),
            2 => ("grpc-timeout", "-1S"),
            3 => ("grpc-timeout", "S"),
            4 => ("grpc-encoding", "identity"),
            5 => ("grpc-encoding", "zstd"),
            6 => ("grpc-encoding", "gzip"),
            7 => ("grpc-accept-encoding", "gzip,,deflate;q=2"),
            8 => ("x-request-id", "\u{1f}?\\"),
            9 => ("traceparent", "00-0-0-00"),
            10 => ("authorization", "Bearer "),
            _ => ("content-length", "12"),
        });
    }
    if dice.one_in(16) {
        headers[0].1 = dice.pick(&["application/grpc+json", "application/json", "", "application/grpc-web"]);
    }
    // A header that no client would let through is left out by this one as well.
    headers.retain(|(name, value)| *name != "content-length" && value.bytes().all(|byte| (32..127).contains(&byte)));
    let message = protobuf::inference(&good.window, dice);
    let mut body = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    match dice.below(12) {
        0 => body[0] = dice.below(256) as u8,
        1 => body[1 + dice.below(4)] = dice.below(256) as u8,
        2 => body.truncate(dice.below(body.len())),
        3 => body = [&body[..], &body].concat(),
        _ => {}
    }
    Call { path, headers, is_framed: messages_are_whole(&body), body }
}

/// Whether `body` is nothing but messages that are not compressed, each with its prefix.
fn messages_are_whole(mut body: &[u8]) -> bool {
    while let Some((&[compressed, a, b, c, d], rest)) = body.split_first_chunk() {
        let Some(rest) = rest.get(u32::from_be_bytes([a, b, c, d]) as usize..) else { return false };
        if compressed != 0 {
            return false;
        }
        body = rest;
    }
    body.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_if_it_is_as_long_as_its_prefix_says() {
        assert!(messages_are_whole(&[0, 0, 0, 0, 2, 7, 7, 0, 0, 0, 0, 0]));
        for wrong in [&[0, 0, 0, 0, 2, 7][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1, 7, 7]] {
            assert!(!messages_are_whole(wrong), "{wrong:?}");
        }
    }
}
