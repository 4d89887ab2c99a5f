//! Operators that ONNX Runtime lacks. A graph names them by the domain `volley`, version 1.
//!
//! | operator | what it does |
//! |---|---|
//! | `QLstm` | an LSTM over eight-bit activations and weights, whose rows do not know of each other |
//!
//! Every session of this crate knows them. A host with an ONNX Runtime of its own loads them as a custom-operator
//! library: `cargo build --release --example operators` makes it, `register_custom_ops_library` takes it.

mod cells;
mod instructions;
mod library;
mod lstm;
mod qlstm;
mod weights;

use ort::operator::OperatorDomain;

pub use library::register_custom_ops;

/// All operators of this crate, to be added to a session.
pub(crate) fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new("volley")?.add(qlstm::QLstm)
}
