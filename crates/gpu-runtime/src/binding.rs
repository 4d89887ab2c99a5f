//! Buffers that stay bound: the only place with raw ONNX Runtime values, and so with most of the crate's `unsafe`.
//!
//! A buffer is allocated once for the largest batch. For each batch size a binding is made that views the buffer's
//! first rows; it is kept, so that a run costs no allocation and no binding. Only where memory runs out are other rows
//! viewed. On a device that is not the CPU, inputs are bound anew for each run, because binding is when ONNX Runtime
//! copies them over.

use std::ffi::CString;
use std::ops::Range;
use std::ptr::NonNull;

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session as OrtSession};
use ort::value::DynTensor;
use ort::{AsPointer, ortsys};

use crate::model::element_type;
use crate::provider::Provider;
use crate::tensor::TensorSpec;

/// Memory for `rows` rows of one tensor, page-locked where a GPU will read or write it.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Owns the memory.
    _tensor: DynTensor,
    memory: MemoryInfo<'static>,
    start: NonNull<u8>,
    spec: TensorSpec,
    name: CString,
    len: usize,
}

// SAFETY: `start` points into memory that `_tensor` owns and that has no thread affinity; all writes need `&mut self`.
unsafe impl Send for Buffer {}
// SAFETY: `&self` gives only reads of plain bytes.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(crate) fn new(session: &OrtSession, spec: &TensorSpec, rows: usize, provider: Provider) -> ort::Result<Self> {
        let mut shape = vec![rows];
        shape.extend(&spec.row_shape);
        let dtype = element_type(spec.dtype);
        let mut tensor = if provider == Provider::Cpu {
            DynTensor::new(session.allocator(), dtype, shape)?
        } else {
            let pinned =
                MemoryInfo::new(AllocationDevice::CUDA_PINNED, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
            DynTensor::new(&Allocator::new(session, pinned)?, dtype, shape)?
        };
        let memory = tensor.memory_info().to_owned();
        let len = rows * spec.row_bytes();
        let start = NonNull::new(tensor.data_ptr_mut().cast::<u8>()).ok_or_else(|| ort::Error::new("no memory"))?;
        // SAFETY: the tensor has `len` bytes from `start` on, freshly allocated and not shared. Zeroed so that no row
        // is ever uninitialised, whatever was written before a run.
        unsafe { start.as_ptr().write_bytes(0, len) };
        let name = CString::new(spec.name.as_str()).map_err(|e| ort::Error::new(e.to_string()))?;
        Ok(Self { _tensor: tensor, memory, start, spec: spec.clone(), name, len })
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.spec.row_bytes()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes; they are written only through `&mut self` or, in a run, by the session,
        // which holds `&mut` on the buffer then (inputs) or has made sure that nobody else holds it (outputs).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// A value over the rows `rows`. It must not outlive the buffer.
    fn view(&self, rows: Range<usize>) -> ort::Result<View> {
        let bytes = rows.start * self.row_bytes()..rows.end * self.row_bytes();
        assert!(bytes.end <= self.len, "rows {rows:?} of a buffer of {} bytes", self.len);
        let shape: Vec<i64> =
            std::iter::once(rows.len()).chain(self.spec.row_shape.iter().copied()).map(|axis| axis as i64).collect();
        // SAFETY: within the buffer, as was checked.
        let start = unsafe { self.start.as_ptr().add(bytes.start) };
        let mut value = std::ptr::null_mut();
        ortsys![
            unsafe CreateTensorWithDataAsOrtValue(
                self.memory.ptr(),
                start.cast(),
                bytes.len(),
                shape.as_ptr(),
                shape.len(),
                element_type(self.spec.dtype).into(),
                &mut value
            )?
        ];
        Ok(View(value))
    }

    pub(crate) fn bind_as_input(&self, binding: &mut IoBinding, rows: Range<usize>) -> ort::Result<()> {
        let view = self.view(rows)?;
        ortsys![unsafe BindInput(binding.ptr_mut(), self.name.as_ptr(), view.0)?];
        Ok(())
    }

    pub(crate) fn bind_as_output(&self, binding: &mut IoBinding, rows: Range<usize>) -> ort::Result<()> {
        let view = self.view(rows)?;
        ortsys![unsafe BindOutput(binding.ptr_mut(), self.name.as_ptr(), view.0)?];
        Ok(())
    }
}

/// A raw value; a binding keeps its own reference, so this one is released as soon as it is bound.
struct View(*mut ort::sys::OrtValue);

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: made by `CreateTensorWithDataAsOrtValue`, released once.
        unsafe { (ort::api().ReleaseValue)(self.0) };
    }
}
