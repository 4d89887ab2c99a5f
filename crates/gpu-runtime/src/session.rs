//! One worker's running model: bound input buffers, pooled output buffers, and the rule by which outputs are handed out.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ort::session::{IoBinding, Session as OrtSession};

use crate::binding::Buffer;
use crate::error::RunError;
use crate::outputs::{OutputBuffers, Outputs};
use crate::provider::Provider;
use crate::tensor::TensorSpec;

/// A model opened for one worker. Rows are written straight into the buffer ONNX Runtime reads.
///
/// A row's answer depends on that row alone, whatever else is in the batch, if the model's operators have that property;
/// the golden check compares rows alone with rows in a batch.
#[derive(Debug)]
pub struct Session {
    // Declared before the buffers they view, so that they are dropped first.
    slots: Vec<Slot>,
    session: OrtSession,
    inputs: Vec<Buffer>,
    outputs: Arc<[TensorSpec]>,
    max_rows: usize,
    provider: Provider,
}

/// A set of output buffers and, for each batch size used so far, the binding that writes there.
#[derive(Debug)]
struct Slot {
    bindings: Vec<Option<IoBinding>>,
    buffers: Arc<OutputBuffers>,
}

impl Session {
    pub(crate) fn bind(
        session: OrtSession,
        inputs: &[TensorSpec],
        outputs: &Arc<[TensorSpec]>,
        max_rows: usize,
        provider: Provider,
    ) -> ort::Result<Self> {
        let inputs =
            inputs.iter().map(|spec| Buffer::new(&session, spec, max_rows, provider)).collect::<Result<_, _>>()?;
        Ok(Self { slots: Vec::new(), session, inputs, outputs: Arc::clone(outputs), max_rows, provider })
    }

    /// Rows of the largest batch.
    #[must_use]
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// Writes rows of input `input`, from row `row` on. The bytes may come in pieces, as they came from the network; they
    /// are little-endian values in C order.
    ///
    /// # Panics
    /// If the bytes reach past the largest batch: what is written must have been validated before.
    pub fn write<'a>(&mut self, input: usize, row: usize, pieces: impl IntoIterator<Item = &'a [u8]>) {
        let buffer = &mut self.inputs[input];
        let mut start = row * buffer.row_bytes();
        for piece in pieces {
            buffer.bytes_mut()[start..start + piece.len()].copy_from_slice(piece);
            start += piece.len();
        }
    }

    /// Runs the first `rows` rows written. The outputs stay in the session's buffer until [`BatchOutputs::rows`] hands
    /// them out.
    ///
    /// # Errors
    /// [`RunError`] when ONNX Runtime fails; the session can be used again.
    ///
    /// # Panics
    /// If `rows` is zero (ONNX Runtime would abort the process) or more than [`Session::max_rows`].
    pub fn run(&mut self, rows: usize) -> Result<BatchOutputs<'_>, RunError> {
        assert!((1..=self.max_rows).contains(&rows), "a batch has 1 to {} rows, not {rows}", self.max_rows);
        let buffers = self.run_bound(rows).map_err(|e| RunError::new(&e))?;
        Ok(BatchOutputs { buffers, rows })
    }

    fn run_bound(&mut self, rows: usize) -> ort::Result<&Arc<OutputBuffers>> {
        let free = match self.slots.iter_mut().position(|slot| Arc::get_mut(&mut slot.buffers).is_some()) {
            Some(free) => free,
            None => {
                let buffers =
                    self.outputs.iter().map(|spec| Buffer::new(&self.session, spec, self.max_rows, self.provider));
                let buffers = Arc::new(OutputBuffers::new(&self.outputs, buffers.collect::<Result<_, _>>()?));
                self.slots.push(Slot { bindings: (0..self.max_rows).map(|_| None).collect(), buffers });
                self.slots.len() - 1
            }
        };
        let slot = &mut self.slots[free];
        let binding = match &mut slot.bindings[rows - 1] {
            Some(binding) => binding,
            empty => {
                let mut binding = self.session.create_binding()?;
                for input in &self.inputs {
                    input.bind_as_input(&mut binding, rows)?;
                }
                for output in slot.buffers.iter() {
                    output.bind_as_output(&mut binding, rows)?;
                }
                empty.insert(binding)
            }
        };
        if self.provider != Provider::Cpu {
            for input in &self.inputs {
                input.bind_as_input(binding, rows)?;
            }
        }
        self.session.run_binding(binding)?;
        Ok(&slot.buffers)
    }
}

/// The outputs of one batch, still in the session's buffer.
#[derive(Debug)]
pub struct BatchOutputs<'session> {
    buffers: &'session Arc<OutputBuffers>,
    rows: usize,
}

impl BatchOutputs<'_> {
    /// The outputs of the rows `rows`: copied when small, else shared slices of the buffer, which is then not bound again
    /// until the last slice is dropped.
    ///
    /// # Panics
    /// If the range reaches past the batch.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Outputs {
        assert!(rows.end <= self.rows, "rows {rows:?} of a batch of {}", self.rows);
        Outputs::from_buffers(self.buffers, rows)
    }

    /// The bytes of one output for the whole batch, in place.
    #[must_use]
    pub fn tensor(&self, output: usize) -> &[u8] {
        self.buffers.rows(output, 0..self.rows)
    }
}

#[expect(dead_code, reason = "states at compile time that a session may move to its worker's thread")]
fn a_session_may_move_to_its_workers_thread(session: Session) -> impl Send {
    session
}

const _: fn() = || {
    fn shared_across_threads<T: Send + Sync>() {}
    shared_across_threads::<Outputs>();
    shared_across_threads::<Bytes>();
};
