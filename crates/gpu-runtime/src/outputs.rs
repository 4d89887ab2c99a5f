//! How outputs leave the runtime: small ones copied into one piece, large ones as slices of a pooled buffer.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::binding::Buffer;
use crate::tensor::TensorSpec;

/// Up to this many bytes, all of a request's outputs are copied: a copy of 4 kB costs less than keeping a whole batch's
/// buffer from being bound again.
const COPY_LIMIT: usize = 4096;

/// The output buffers of one slot. Whoever holds the `Arc` keeps them from being written.
#[derive(Debug)]
pub(crate) struct OutputBuffers {
    specs: Arc<[TensorSpec]>,
    buffers: Vec<Buffer>,
}

impl OutputBuffers {
    pub(crate) fn new(specs: &Arc<[TensorSpec]>, buffers: Vec<Buffer>) -> Self {
        Self { specs: Arc::clone(specs), buffers }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Buffer> {
        self.buffers.iter()
    }

    pub(crate) fn rows(&self, output: usize, rows: Range<usize>) -> &[u8] {
        let buffer = &self.buffers[output];
        &buffer.bytes()[rows.start * buffer.row_bytes()..rows.end * buffer.row_bytes()]
    }
}

/// The outputs of one request: little-endian values in C order, one piece a tensor, in the model's order of outputs.
#[derive(Debug, Clone)]
pub struct Outputs(Pieces);

#[derive(Debug, Clone)]
enum Pieces {
    /// All tensors, one after the other, of so many rows.
    Joined { bytes: Bytes, rows: usize, specs: Arc<[TensorSpec]> },
    /// A piece for each tensor.
    Apart(Arc<[Bytes]>),
}

impl Outputs {
    pub(crate) fn from_buffers(buffers: &Arc<OutputBuffers>, rows: Range<usize>) -> Self {
        let count = buffers.buffers.len();
        let total: usize = (0..count).map(|output| buffers.rows(output, rows.clone()).len()).sum();
        if total > COPY_LIMIT {
            let piece =
                |output| Bytes::from_owner(HeldRows { buffers: Arc::clone(buffers), output, rows: rows.clone() });
            return Self(Pieces::Apart((0..count).map(piece).collect()));
        }
        let mut bytes = Vec::with_capacity(total);
        for output in 0..count {
            bytes.extend_from_slice(buffers.rows(output, rows.clone()));
        }
        Self(Pieces::Joined { bytes: bytes.into(), rows: rows.len(), specs: Arc::clone(&buffers.specs) })
    }

    /// Takes apart what [`Outputs::to_joined`] gave, for `rows` rows of a model with these outputs.
    ///
    /// Returns `None` if the length does not fit.
    #[must_use]
    pub fn from_joined(bytes: Bytes, specs: &Arc<[TensorSpec]>, rows: usize) -> Option<Self> {
        let expected: usize = specs.iter().map(|spec| spec.row_bytes() * rows).sum();
        (expected == bytes.len()).then(|| Self(Pieces::Joined { bytes, rows, specs: Arc::clone(specs) }))
    }

    /// All tensors in one piece that shares nothing with a batch buffer, fit to be kept (in a cache) for long.
    #[must_use]
    pub fn to_joined(&self) -> Bytes {
        match &self.0 {
            Pieces::Joined { bytes, .. } => bytes.clone(),
            Pieces::Apart(pieces) => pieces.concat().into(),
        }
    }

    /// The bytes of output `output`.
    ///
    /// # Panics
    /// If the model has no such output.
    #[must_use]
    pub fn values(&self, output: usize) -> &[u8] {
        match &self.0 {
            Pieces::Joined { bytes, rows, specs } => &bytes[joined(specs, *rows, output)],
            Pieces::Apart(pieces) => &pieces[output],
        }
    }

    /// The bytes of output `output`, to be kept; they are not copied.
    ///
    /// # Panics
    /// If the model has no such output.
    #[must_use]
    pub fn tensor(&self, output: usize) -> Bytes {
        match &self.0 {
            Pieces::Joined { bytes, rows, specs } => bytes.slice(joined(specs, *rows, output)),
            Pieces::Apart(pieces) => pieces[output].clone(),
        }
    }
}

/// Where in the one piece the bytes of output `output` are.
fn joined(specs: &[TensorSpec], rows: usize, output: usize) -> Range<usize> {
    let start: usize = specs[..output].iter().map(|spec| spec.row_bytes() * rows).sum();
    start..start + specs[output].row_bytes() * rows
}

/// Rows of a buffer that must not be written while this lives.
struct HeldRows {
    buffers: Arc<OutputBuffers>,
    output: usize,
    rows: Range<usize>,
}

impl AsRef<[u8]> for HeldRows {
    fn as_ref(&self) -> &[u8] {
        self.buffers.rows(self.output, self.rows.clone())
    }
}
