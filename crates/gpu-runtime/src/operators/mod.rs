//! Operators that ONNX Runtime lacks. A graph names them by the domain `volley`, version 1.
//!
//! | operator | what it does |
//! |---|---|
//! | `QLstm` | an LSTM over eight-bit activations and weights, whose rows do not know of each other |
//!
//! Every session of this crate knows them. A host with an ONNX Runtime of its own loads them as a custom-operator
//! library: `cargo build --release --example operators` makes it, `register_custom_ops_library` takes it.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod cells;
mod instructions;
#[cfg(target_arch = "x86_64")]
mod laid_out;
mod library;
mod lstm;
mod qlstm;
mod weights;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use ort::operator::OperatorDomain;
use ort::session::Session;
use ort::session::builder::SessionBuilder;

pub use library::register_custom_ops;

/// With which libraries beside these operators a session has been opened.
static OPENED: Mutex<Vec<Vec<PathBuf>>> = Mutex::new(Vec::new());

/// Opens a session, of the model in `bytes`, that knows the operators and those of `libraries`.
///
/// The first with these libraries is opened alone: it enters their domains into a map of the whole process, and ONNX
/// Runtime refuses the second of two sessions that look into that map before either has entered one.
pub(crate) fn open_session(builder: SessionBuilder, libraries: &[PathBuf], bytes: &[u8]) -> ort::Result<Session> {
    let mut builder = builder.with_operators(domain()?)?;
    for library in libraries {
        builder = builder.with_operator_library(library)?;
    }
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if opened.iter().any(|with| with == libraries) {
        drop(opened);
        return builder.commit_from_memory(bytes);
    }
    let session = builder.commit_from_memory(bytes)?;
    opened.push(libraries.to_vec());
    Ok(session)
}

fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new("volley")?.add(qlstm::QLstm)
}
