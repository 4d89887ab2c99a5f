//! HTTP/2 by hand, so that every byte of it can be wrong.

use crate::dice::Dice;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Bytes before a frame's payload.
const PREFIX: usize = 9;

#[derive(Debug, Clone)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
    /// What it says its length is, where that is a lie.
    claimed: Option<u32>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
    Frame { kind, flags, stream, payload: payload.into(), claimed: None }
}

/// A whole connection with one call in it, a message with its prefix.
fn conversation(message: &[u8]) -> Vec<Frame> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/inference.GRPCInferenceService/ModelInfer"),
        (":authority", "volley"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let block: Vec<u8> = headers.into_iter().flat_map(|(name, value)| header(name, value)).collect();
    vec![frame(SETTINGS, 0, 0, []), frame(HEADERS, END_HEADERS, 1, block), frame(DATA, END_STREAM, 1, message)]
}

/// A header that is kept in no table and not compressed; name and value are shorter than 127 bytes.
fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

fn written(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    for Frame { kind, flags, stream, payload, claimed } in frames {
        let length = claimed.unwrap_or(payload.len() as u32);
        bytes.extend_from_slice(&length.to_be_bytes()[1..]);
        bytes.extend_from_slice(&[*kind, *flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
    }
    bytes
}

/// A good call as the bytes of its connection.
pub(crate) fn good(message: &[u8]) -> Vec<u8> {
    written(&conversation(message))
}

/// A call with up to three frames that are wrong in some way, and whether it is good: then it must be answered.
pub(crate) fn draw(message: &[u8], dice: &mut Dice) -> (Vec<u8>, bool) {
    let mut frames = conversation(message);
    let spoilt = dice.below(4);
    for _ in 0..spoilt {
        let at = dice.below(frames.len());
        match dice.below(10) {
            0 if frames.len() > 1 => drop(frames.remove(at)),
            1 => frames.insert(at, frames[at].clone()),
            2 => {
                let other = dice.below(frames.len());
                frames.swap(at, other);
            }
            3 => frames[at].kind = dice.below(256) as u8,
            4 => frames[at].flags ^= 1 << dice.below(8),
            5 => frames[at].stream = [0, 2, 3, 0x7fff_ffff, u32::MAX][dice.below(5)],
            6 => frames[at].claimed = Some([0, 1, 16_384, 16_385, 0x00ff_ffff][dice.below(5)]),
            _ => {
                let odd = odd(dice);
                frames.splice(at..at, odd);
            }
        }
    }
    (written(&frames), spoilt == 0)
}

/// What no caller sends, or not so often.
fn odd(dice: &mut Dice) -> Vec<Frame> {
    let (kind, stream, few) = (dice.below(12) as u8, dice.below(4) as u32, dice.below(12));
    let random = dice.bytes(few);
    match dice.below(10) {
        0 => vec![frame(PING, 0, 0, random)],
        1 => vec![frame(WINDOW_UPDATE, 0, stream, [[0; 4], [0x7f, 0xff, 0xff, 0xff]][dice.below(2)])],
        2 => {
            let value = [0, 1, 0x7fff_ffff, u32::MAX][dice.below(4)];
            let setting = [&[0, dice.below(8) as u8][..], &u32::to_be_bytes(value)].concat();
            vec![frame(SETTINGS, 0, 0, setting)]
        }
        3 => vec![frame(RST_STREAM, 0, stream, [0, 0, 0, 8])],
        4 => vec![frame(GOAWAY, 0, 0, [0; 8])],
        5 => vec![frame(CONTINUATION, 0, 1, random); 1 + few * 20],
        6 => vec![frame(PING, 0, 0, [0; 8]); 1 + few * 20],
        // Calls that are taken back as soon as they are made.
        7 => {
            let block: Vec<u8> = header(":method", "POST");
            let made = |stream| [frame(HEADERS, END_HEADERS, stream, &block[..]), frame(RST_STREAM, 0, stream, [0; 4])];
            (0..=few as u32 * 8).flat_map(|call| made(3 + 2 * call)).collect()
        }
        // A header block that no table can be read from.
        8 => vec![frame(HEADERS, END_HEADERS | END_STREAM, 3, [&[0xff; 6], &random[..]].concat())],
        _ => vec![frame(kind, dice.below(256) as u8, stream, random)],
    }
}

/// Whether these bytes of a server say that a call is over: its last headers, its reset, or the end of the connection.
pub(crate) fn is_answered(mut bytes: &[u8]) -> bool {
    while let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() {
        let [a, b, c, kind, flags, ..] = *prefix;
        let is_last = kind == HEADERS && flags & END_STREAM != 0;
        if is_last || matches!(kind, RST_STREAM | GOAWAY) {
            return true;
        }
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        bytes = rest.get(length..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_its_length_kind_flags_and_stream_before_its_payload() {
        let bytes = written(&[frame(DATA, END_STREAM, 5, *b"abc")]);
        assert_eq!(bytes[PREFACE.len()..], [0, 0, 3, 0, 1, 0, 0, 0, 5, b'a', b'b', b'c']);
    }

    #[test]
    fn a_call_is_over_with_its_last_headers_wherever_they_stand() {
        let said = |frames: &[Frame]| written(frames)[PREFACE.len()..].to_vec();
        let (settings, data) = (frame(SETTINGS, 0, 0, [0; 6]), frame(DATA, 0, 1, [0; 20]));
        let (first, last) =
            (frame(HEADERS, END_HEADERS, 1, [0x88]), frame(HEADERS, END_HEADERS | END_STREAM, 1, [0x88]));
        assert!(!is_answered(&said(&[settings.clone(), first.clone(), data.clone()])));
        assert!(is_answered(&said(&[settings, first, data, last])));
    }
}
