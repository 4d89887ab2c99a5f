//! Between the wire and the pipeline: protocol bodies in, [`InferRequest`]; results out, protocol bodies.

mod data;
mod object;
mod parameters;
mod pieces;
mod request;
mod response;

pub(crate) use parameters::Parameters;
pub(crate) use pieces::Pieces;
pub(crate) use request::{Envelope, InferRequest, Interface, split};
pub(crate) use response::{Answerer, Encoded, Participation, encode};
