//! Messages as prost writes and reads them.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::error::ApiError;

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

    fn encode(&mut self, message: M, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

#[derive(Debug)]
pub(super) struct Reader<M>(PhantomData<M>);

impl<M: Message + Default> Decoder for Reader<M> {
    type Item = M;
    type Error = Status;

    /// What cannot be read is the caller's fault.
    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        M::decode(message).map(Some).map_err(|error| ApiError::invalid("message", error).into())
    }
}
