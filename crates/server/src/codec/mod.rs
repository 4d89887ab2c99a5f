//! Between the wire and the pipeline: protocol bodies in, [`InferRequest`]; results out, protocol bodies.

mod data;
mod parameters;
mod pieces;
mod request;
mod response;

pub use parameters::Parameters;
pub use pieces::Pieces;
pub use request::{Envelope, InferRequest, Interface, split};
pub use response::{Encoded, encode};
