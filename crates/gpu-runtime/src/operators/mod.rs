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

use std::sync::{Mutex, PoisonError};

use ort::operator::OperatorDomain;
use ort::session::Session;
use ort::session::builder::SessionBuilder;

pub use library::register_custom_ops;

/// Whether a session with these operators has been opened.
static OPENED: Mutex<bool> = Mutex::new(false);

/// Opens a session, of the model in `bytes`, that knows the operators.
///
/// The first is opened alone: it enters the domain into a map of the whole process, and ONNX Runtime refuses the second
/// of two sessions that look into that map before either has entered it.
pub(crate) fn open_session(builder: SessionBuilder, bytes: &[u8]) -> ort::Result<Session> {
    let mut builder = builder.with_operators(domain()?)?;
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if *opened {
        drop(opened);
        return builder.commit_from_memory(bytes);
    }
    let session = builder.commit_from_memory(bytes)?;
    *opened = true;
    Ok(session)
}

fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new("volley")?.add(qlstm::QLstm)
}
