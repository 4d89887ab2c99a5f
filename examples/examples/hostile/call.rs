//! A call over HTTP/2 with something wrong in it that a well-made client sends all the same.

use crate::dice::Dice;
use crate::good::Good;
use crate::protobuf;

#[derive(Debug)]
pub(crate) struct Call {
    pub path: &'static str,
    pub headers: Vec<(&'static str, &'static str)>,
    /// Whether there are messages in the body, and each is as long as its prefix says, and not compressed.
    pub is_framed: bool,
    pub body: Vec<u8>,
}

impl Call {
    /// One with parts that are wrong, none or several.
    pub(crate) fn draw(good: &Good, dice: &mut Dice) -> Self {
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
                8 => ("x-request-id", "\"?\\"),
                9 => ("traceparent", "00-0-0-00"),
                10 => ("authorization", "Bearer "),
                _ => ("content-encoding", "gzip"),
            });
        }
        if dice.one_in(16) {
            headers[0].1 = dice.pick(&["application/grpc+json", "application/json", "", "application/grpc-web"]);
        }
        let message = protobuf::inference(&good.window, dice);
        let mut body = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
        match dice.below(12) {
            0 => body[0] = dice.below(256) as u8,
            1 => body[1 + dice.below(4)] = dice.below(256) as u8,
            2 => body.truncate(dice.below(body.len())),
            3 => body = [&body[..], &body].concat(),
            _ => {}
        }
        Self { path, headers, is_framed: !body.is_empty() && messages_are_whole(&body), body }
    }
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
