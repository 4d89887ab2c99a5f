//! One worker's running model: bound input buffers, pooled output buffers, and the rule by which outputs are handed
//! out.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ort::session::{IoBinding, Session as OrtSession};

use crate::binding::Buffer;
use crate::error::RunError;
use crate::file::ModelFile;
use crate::interrupt::{Flag, Interrupter, Running};
use crate::memory::RowLimit;
use crate::outputs::{OutputBuffers, Outputs};
use crate::provider::Provider;
use crate::tensor::TensorSpec;

/// A model opened for one worker. Rows are written straight into the buffer ONNX Runtime reads.
///
/// A row's answer depends on that row alone, whatever else is in the batch, if the model's operators have that
/// property; the golden check compares rows alone with rows in a batch.
#[derive(Debug)]
pub struct Session {
    // Declared before the buffers they view, so that they are dropped first.
    slots: Vec<Slot>,
    session: OrtSession,
    inputs: Vec<Buffer>,
    outputs: Arc<[TensorSpec]>,
    max_rows: usize,
    provider: Provider,
    limit: RowLimit,
    /// The next run that succeeds gives back what the arena does not need.
    shrink: bool,
    flag: Arc<Flag>,
    /// ONNX Runtime may use the weights where they lie.
    _file: ModelFile,
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
        device: i32,
        file: ModelFile,
    ) -> ort::Result<Self> {
        let inputs =
            inputs.iter().map(|spec| Buffer::new(&session, spec, max_rows, provider)).collect::<Result<_, _>>()?;
        Ok(Self {
            slots: Vec::new(),
            session,
            inputs,
            outputs: Arc::clone(outputs),
            max_rows,
            provider,
            limit: RowLimit::new(max_rows),
            shrink: false,
            flag: Flag::new(provider, device)?,
            _file: file,
        })
    }

    /// Rows of the largest batch.
    #[must_use]
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// Rows that are run at once: [`max_rows`](Self::max_rows), or less where memory ran out. A larger batch is run in
    /// parts, to the same answers. Now and then more is tried, so that the limit goes when the shortage does.
    #[must_use]
    pub fn row_limit(&self) -> usize {
        self.limit.rows()
    }

    /// What ends, from any thread, the next run, or the one in progress.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.flag.interrupter()
    }

    /// Writes rows of input `input`, from row `row` on. The bytes may come in pieces, as they came from the network;
    /// they are little-endian values in C order.
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

    /// Writes zeros to all inputs of these rows, so that what pads a batch is the same for everybody.
    ///
    /// # Panics
    /// If the range reaches past the largest batch.
    pub fn blank(&mut self, rows: Range<usize>) {
        for buffer in &mut self.inputs {
            let bytes = buffer.row_bytes();
            buffer.bytes_mut()[rows.start * bytes..rows.end * bytes].fill(0);
        }
    }

    /// Runs the first `rows` rows written. The outputs stay in the session's buffer until [`BatchOutputs::rows`] hands
    /// them out. Where memory does not suffice, they are run in parts.
    ///
    /// # Errors
    /// [`RunError`] when ONNX Runtime fails, memory does not suffice for one row (or for new output buffers where all
    /// are held), or the run was [interrupted](Self::interrupter). Only after the first may the session be broken.
    ///
    /// # Panics
    /// If `rows` is zero (ONNX Runtime would abort the process) or more than [`Session::max_rows`].
    pub fn run(&mut self, rows: usize) -> Result<BatchOutputs<'_>, RunError> {
        assert!((1..=self.max_rows).contains(&rows), "a batch has 1 to {} rows, not {rows}", self.max_rows);
        let flag = Arc::clone(&self.flag);
        let running = flag.begin().map_err(|e| RunError::new(&e))?;
        let slot = self.free_slot().map_err(|e| RunError::new(&e))?;
        if self.limit.is_learned() {
            self.run_in_parts(&running, slot, 0..rows)?;
        } else if let Err(error) = self.run_rows(&running, slot, 0..rows) {
            if !error.is_out_of_memory() {
                return Err(error);
            }
            self.limit(rows, error)?;
            self.run_in_parts(&running, slot, 0..rows)?;
        }
        Ok(BatchOutputs { buffers: &self.slots[slot].buffers, rows })
    }

    /// Gives back what memory ONNX Runtime keeps for larger batches, by running one row whose answer nobody hears. The
    /// next large batch takes the memory anew, which costs it some time.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn trim(&mut self) -> Result<(), RunError> {
        self.shrink = true;
        self.run(1).map(drop)
    }

    /// Runs as many rows at a time as memory suffices for.
    fn run_in_parts(&mut self, running: &Running<'_>, slot: usize, rows: Range<usize>) -> Result<(), RunError> {
        let mut start = rows.start;
        while start < rows.end {
            let tried = self.limit.attempt(Instant::now());
            // When it is time to try more rows than there are, others go along, whose answers nobody hears.
            let last = if tried > self.limit.rows() { self.max_rows } else { rows.end };
            let end = last.min(start + tried);
            // While memory is short, no batch leaves any with the arena: others need it, and so do the next outputs.
            self.shrink |= end >= rows.end;
            match self.run_rows(running, slot, start..end) {
                Ok(()) => {
                    self.limit.succeeded(end - start, Instant::now());
                    start = end;
                }
                Err(error) if error.is_out_of_memory() => self.limit(end - start, error)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Learns that `rows` rows are too many; returns the error if fewer cannot be tried.
    fn limit(&mut self, rows: usize, error: RunError) -> Result<(), RunError> {
        self.shrink = true;
        let Some(fewer) = self.limit.failed(rows, Instant::now()) else { return Err(error) };
        tracing::warn!(rows, fewer, %error, "memory does not suffice for a batch; it is run in parts");
        Ok(())
    }

    /// The number of a slot that nobody holds outputs of.
    fn free_slot(&mut self) -> ort::Result<usize> {
        if let Some(free) = self.slots.iter_mut().position(|slot| Arc::get_mut(&mut slot.buffers).is_some()) {
            return Ok(free);
        }
        let buffers = self.outputs.iter().map(|spec| Buffer::new(&self.session, spec, self.max_rows, self.provider));
        let buffers = Arc::new(OutputBuffers::new(&self.outputs, buffers.collect::<Result<_, _>>()?));
        self.slots.push(Slot { bindings: (0..self.max_rows).map(|_| None).collect(), buffers });
        Ok(self.slots.len() - 1)
    }

    fn run_rows(&mut self, running: &Running<'_>, slot: usize, rows: Range<usize>) -> Result<(), RunError> {
        self.run_bound(running, slot, rows).map_err(|e| RunError::new(&e))
    }

    fn run_bound(&mut self, running: &Running<'_>, slot: usize, rows: Range<usize>) -> ort::Result<()> {
        let Self { slots, session, inputs, provider, shrink, .. } = self;
        let Slot { bindings, buffers } = &mut slots[slot];
        let mut of_a_part = None;
        let kept = if rows.start == 0 { &mut bindings[rows.end - 1] } else { &mut of_a_part };
        let binding = match kept {
            Some(binding) => binding,
            empty => {
                let mut binding = session.create_binding()?;
                for input in &*inputs {
                    input.bind_as_input(&mut binding, rows.clone())?;
                }
                for output in buffers.iter() {
                    output.bind_as_output(&mut binding, rows.clone())?;
                }
                empty.insert(binding)
            }
        };
        if *provider != Provider::Cpu {
            for input in &*inputs {
                input.bind_as_input(binding, rows.clone())?;
            }
        }
        session.run_binding_with_options(binding, running.options(*shrink))?;
        *shrink = false;
        Ok(())
    }
}

/// The outputs of one batch, still in the session's buffer.
#[derive(Debug)]
pub struct BatchOutputs<'session> {
    buffers: &'session Arc<OutputBuffers>,
    rows: usize,
}

impl BatchOutputs<'_> {
    /// The outputs of the rows `rows`: copied when small, else shared slices of the buffer, which is then not bound
    /// again until the last slice is dropped.
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
