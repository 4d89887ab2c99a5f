//! A message alone, and its answer, neither of them compressed: what nearly every call is.
//!
//! tonic reads any call as a stream of messages of any encoding, which copies each message and makes the state of a call
//! thousands of bytes large. Here a message that came in one frame is used where it lies.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response};
use prost::Message;
use tonic::Status;
use tonic::body::Body;

use crate::error::{ApiError, Cause};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Whether a caller says that its message may be compressed.
pub(super) fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity")
}

/// Reads the one message of a call, of at most `limit` bytes.
///
/// # Errors
/// What the body ended with; `INVALID_ARGUMENT` for what is no message of this kind, or more than one; `RESOURCE_EXHAUSTED`
/// for one that is too large, as soon as it says so; `INTERNAL`, as gRPC has it, for one that says it is compressed.
pub(super) async fn read<M, B>(mut body: B, limit: usize) -> Result<M, Status>
where
    M: Message + Default,
    B: hyper::body::Body<Data = Bytes, Error = Status> + Unpin,
{
    let mut whole = Bytes::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        whole = if whole.is_empty() { data } else { joined(whole, &data) };
        if let Some(length) = length(&whole, limit)?
            && whole.len() > PREFIX + length
        {
            return Err(ApiError::invalid("message", "there are bytes after it; a call of this method has one").into());
        }
    }
    match length(&whole, limit)? {
        Some(length) if whole.len() == PREFIX + length => {}
        _ => return Err(ApiError::invalid("message", "the call ends before its message does").into()),
    }
    whole.advance(PREFIX);
    M::decode(whole).map_err(|error| ApiError::invalid("message", error).into())
}

/// The length that the message has by its prefix, once that is there.
fn length(whole: &[u8], limit: usize) -> Result<Option<usize>, Status> {
    let Some((&[compressed, ref length @ ..], _)) = whole.split_first_chunk::<PREFIX>() else { return Ok(None) };
    if compressed != 0 {
        return Err(Status::internal("the message says that it is compressed, and no header grpc-encoding says how"));
    }
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > limit {
        return Err(too_large(limit));
    }
    Ok(Some(length))
}

/// Refuses a message.
pub(super) fn too_large(limit: usize) -> Status {
    let message = format!("message: more than {limit} bytes; send fewer rows, or raise http.max_body_bytes");
    ApiError::new(Cause::TooLarge, message).into()
}

/// Copies nothing but `more` from the second time on: what was joined before has no other owner.
fn joined(whole: Bytes, more: &[u8]) -> Bytes {
    let mut whole = BytesMut::from(whole);
    whole.extend_from_slice(more);
    whole.freeze()
}

/// A call's answer, which went well. `call` is held until the other end has room for it.
///
/// # Errors
/// `OUT_OF_RANGE` for four gigabytes and more, which no message can have.
pub(super) fn answer(message: &impl Message, call: Arc<()>) -> Result<Response<Body>, Status> {
    let length = message.encoded_len();
    let longest = |_| Status::out_of_range(format!("the answer has {length} bytes, more than a message can have"));
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).map_err(longest)?);
    message.encode_raw(&mut framed);
    let mut ended = HeaderMap::with_capacity(1);
    ended.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    // The trailers are asked for when the message has left.
    let body = Full::new(framed.freeze()).with_trailers(async move {
        drop(call);
        Some(Ok(ended))
    });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use futures_util::{FutureExt, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tonic::Code;

    use super::*;
    use crate::protocol::NamedModel;

    const LIMIT: usize = 100;

    /// Reads what came in these pieces.
    fn read_pieces<const N: usize>(pieces: [&[u8]; N]) -> Result<NamedModel, Status> {
        let frames: VecDeque<_> =
            pieces.iter().map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        let body = StreamBody::new(stream::iter(frames)).map_err(|never| match never {});
        read(body, LIMIT).now_or_never().expect("all is there")
    }

    fn framed(name: &str) -> Vec<u8> {
        let message = NamedModel { name: name.to_owned(), ..NamedModel::default() }.encode_to_vec();
        [&[0, 0, 0, 0, u8::try_from(message.len()).expect("short")], &message[..]].concat()
    }

    #[test]
    fn a_message_is_the_same_however_it_is_cut() {
        let whole = framed("cnn_lstm");
        for first in 0..=whole.len() {
            for second in first..=whole.len() {
                let read = read_pieces([&whole[..first], &whole[first..second], &whole[second..]]);
                assert_eq!(read.expect("it is whole").name, "cnn_lstm", "cut at {first} and {second}");
            }
        }
        let each: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(read_pieces::<15>(each.try_into().expect("fifteen")).expect("it is whole").name, "cnn_lstm");
    }

    #[test]
    fn what_is_not_one_message_is_refused_and_the_refusal_says_why() {
        let whole = framed("cnn_lstm");
        let compressed = [&[1], &whole[1..]].concat();
        let cases: [(&[u8], Code, &str); 7] = [
            (b"", Code::InvalidArgument, "ends before"),
            (&whole[..4], Code::InvalidArgument, "ends before"),
            (&whole[..whole.len() - 1], Code::InvalidArgument, "ends before"),
            (&[&whole[..], &whole[..]].concat(), Code::InvalidArgument, "bytes after it"),
            (&[0, 0, 0, 0, 3, 255, 255, 255], Code::InvalidArgument, "message"),
            (
                &[0, 0, 0, 0, 101],
                Code::ResourceExhausted,
                "more than 100 bytes; send fewer rows, or raise http.max_body_bytes",
            ),
            (&compressed, Code::Internal, "compressed"),
        ];
        for (sent, code, reason) in cases {
            let refusal = read_pieces([sent]).expect_err("it is no message");
            assert_eq!(refusal.code(), code, "{sent:?}: {refusal}");
            assert!(refusal.message().contains(reason), "{sent:?}: {refusal}");
        }
        // Nothing more is waited for.
        let endless = stream::repeat_with(|| Ok::<_, Status>(Frame::data(Bytes::from_static(&[0, 255, 0, 0, 0]))));
        let refusal = read::<NamedModel, _>(StreamBody::new(endless), LIMIT).now_or_never().expect("at once");
        assert_eq!(refusal.expect_err("too large").code(), Code::ResourceExhausted);
    }

    #[test]
    fn an_answer_is_one_message_and_a_status() {
        let message = NamedModel { name: "cnn_lstm".to_owned(), ..NamedModel::default() };
        let call = Arc::new(());
        let response = answer(&message, Arc::clone(&call)).expect("it is small");
        assert_eq!(Arc::strong_count(&call), 2, "it is not sent yet");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        let body = response.into_body().collect().now_or_never().expect("all is there").expect("nothing fails");
        assert_eq!(body.trailers().expect("a status")["grpc-status"], "0");
        assert_eq!(body.to_bytes(), framed("cnn_lstm"));
        assert_eq!(Arc::strong_count(&call), 1);
    }
}
