//! Messages as prost writes and reads them.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::error::ApiError;

/// Bytes that a message being written or read is given room for at first. tonic's own eight thousand would be too much for
/// an answer, and too little for an input: that makes its own room when its length is known.
const ROOM: usize = 1024;
/// Bytes of a stream's answers that are sent together, if so many are ready.
const TOGETHER: usize = 32 * 1024;

/// Reads `Asked` and writes `Answer`.
#[derive(Debug)]
pub(super) struct Wire<Answer, Asked>(PhantomData<(Answer, Asked)>);

impl<Answer, Asked> Wire<Answer, Asked> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<Answer, Asked> Codec for Wire<Answer, Asked>
where
    Answer: Message + 'static,
    Asked: Message + Default + 'static,
{
    type Encode = Answer;
    type Decode = Asked;
    type Encoder = Writer<Answer>;
    type Decoder = Reader<Asked>;

    fn encoder(&mut self) -> Writer<Answer> {
        Writer(PhantomData)
    }

    fn decoder(&mut self) -> Reader<Asked> {
        Reader(PhantomData)
    }
}

#[derive(Debug)]
pub(super) struct Writer<M>(PhantomData<M>);

impl<M: Message> Encoder for Writer<M> {
    type Item = M;
    type Error = Status;

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ROOM, TOGETHER)
    }

    fn encode(&mut self, message: M, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

#[derive(Debug)]
pub(super) struct Reader<M>(PhantomData<M>);

impl<M: Message + Default> Decoder for Reader<M> {
    type Item = M;
    type Error = Status;

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ROOM, TOGETHER)
    }

    /// What cannot be read is the caller's fault.
    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        M::decode(message).map(Some).map_err(|error| ApiError::invalid("message", error).into())
    }
}
