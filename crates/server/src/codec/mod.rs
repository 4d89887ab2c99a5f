//! Between the wire and the pipeline: bodies of each protocol in, [`InferRequest`]; results out, bodies.

mod binding;
mod data;
mod head;
mod message;
mod object;
mod parameters;
mod pieces;
mod request;
mod response;
mod text;
mod v1;

#[cfg(test)]
pub(crate) use binding::WantedOutput;
pub(crate) use binding::{Binding, InferRequest, Interface, Unbound};
pub(crate) use message::{Message, ModelInferRequest, ModelInferResponse, respond};
pub(crate) use object::Object;
pub(crate) use parameters::Parameters;
pub(crate) use pieces::Pieces;
pub(crate) use request::{Envelope, split};
pub(crate) use response::{Answerer, Encoded, Participation, complaint, encode};
pub(crate) use v1::{Prediction, predict};
