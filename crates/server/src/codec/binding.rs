//! Checks what a request gives against its model, whatever wire form it came in.

use std::fmt;
use std::sync::Arc;

use volley_gpu_runtime::{DataType, TensorSpec};

use super::{Parameters, Pieces};
use crate::error::ApiError;

/// A request in some wire form, taken apart but not yet checked against a model: what its tensors must look like depends
/// on the variant that a parameter may name.
pub(crate) trait Unbound {
    /// The request's parameters.
    fn parameters(&self) -> &Parameters;

    /// Checks the request against the model's interface and takes the tensors out.
    ///
    /// # Errors
    /// [`ApiError`] with status 400, naming the field.
    fn bind(self, interface: Interface<'_>) -> Result<InferRequest, ApiError>;
}

/// A request that fits its model.
#[derive(Debug)]
pub(crate) struct InferRequest {
    /// The caller's own id, echoed.
    pub id: Option<String>,
    /// Values of each model input, in the model's order.
    pub inputs: Arc<[Pieces]>,
    /// Samples in the request.
    pub rows: usize,
    /// Which outputs are wanted and in which form, in the order of the response.
    pub outputs: Vec<WantedOutput>,
}

/// One output of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WantedOutput {
    /// The model's output.
    pub index: usize,
    /// Raw bytes, rather than numbers as text.
    pub binary: bool,
}

/// What the request must be checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interface<'a> {
    /// The model's inputs.
    pub inputs: &'a [TensorSpec],
    /// The model's outputs.
    pub outputs: &'a [TensorSpec],
    /// Rows of the largest batch.
    pub max_rows: usize,
    /// Whether NaN and infinities may be among the inputs.
    pub allow_non_finite: bool,
}

/// What has been given of a request so far.
#[derive(Debug)]
pub(crate) struct Binding<'a> {
    interface: Interface<'a>,
    rows: Option<usize>,
    values: Vec<Option<Pieces>>,
    outputs: Vec<WantedOutput>,
}

/// One of the model's inputs, as a request describes it: of the right type, in a shape that the model takes.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    /// What the model says of it.
    pub spec: &'a TensorSpec,
    /// Its shape in the request, rows first.
    pub shape: Vec<usize>,
    position: usize,
    index: usize,
}

impl Slot<'_> {
    /// Bytes that its values take.
    pub(crate) fn bytes(&self) -> usize {
        self.shape[0] * self.spec.row_bytes()
    }

    /// Something is wrong with `field` of it.
    pub(crate) fn wrong(&self, field: &str, message: impl fmt::Display) -> ApiError {
        ApiError::invalid(format_args!("inputs[{}].{field}", self.position), message)
    }
}

impl<'a> Binding<'a> {
    /// Nothing is given yet.
    pub(crate) fn new(interface: Interface<'a>) -> Self {
        Self { interface, rows: None, values: interface.inputs.iter().map(|_| None).collect(), outputs: Vec::new() }
    }

    /// The request describes its input number `position`.
    pub(crate) fn describe(
        &mut self,
        position: usize,
        name: &str,
        datatype: &str,
        shape: &[u64],
    ) -> Result<Slot<'a>, ApiError> {
        let Interface { inputs, max_rows, .. } = self.interface;
        let wrong = |field: &str, message: fmt::Arguments<'_>| {
            ApiError::invalid(format_args!("inputs[{position}].{field}"), message)
        };
        let Some(index) = inputs.iter().position(|spec| spec.name == name) else {
            let has = names(inputs);
            return Err(wrong("name", format_args!("the model has no input `{name}`; it has {has}")));
        };
        if self.values[index].is_some() {
            return Err(wrong("name", format_args!("input `{name}` is given twice")));
        }
        let spec = &inputs[index];
        if DataType::from_name(datatype) != Some(spec.dtype) {
            return Err(wrong("datatype", format_args!("`{datatype}`; expected {}", spec.dtype)));
        }
        let fits = match shape {
            [rows, row @ ..] => {
                let row_fits =
                    row.len() == spec.row_shape.len() && row.iter().zip(&spec.row_shape).all(|(&a, &b)| a == b as u64);
                row_fits && (1..=max_rows as u64).contains(rows)
            }
            [] => false,
        };
        if !fits {
            let row: String = spec.row_shape.iter().map(|axis| format!(",{axis}")).collect();
            return Err(wrong("shape", format_args!("{shape:?}; expected [N{row}] with N from 1 to {max_rows}")));
        }
        let rows = shape[0] as usize;
        if *self.rows.get_or_insert(rows) != rows {
            let before = self.rows.unwrap_or_default();
            return Err(wrong("shape", format_args!("{rows} rows, where the input before has {before}")));
        }
        let shape = std::iter::once(rows).chain(spec.row_shape.iter().copied()).collect();
        Ok(Slot { spec, shape, position, index })
    }

    /// The request gives the values of an input that it described: as many bytes as [`Slot::bytes`] says.
    pub(crate) fn fill(&mut self, slot: &Slot<'_>, values: Pieces) -> Result<(), ApiError> {
        debug_assert_eq!(values.len(), slot.bytes(), "whoever reads the values counts them");
        if !self.interface.allow_non_finite && !all_finite(&values, slot.spec.dtype) {
            return Err(slot.wrong("data", "holds a NaN or an infinity; expected finite values"));
        }
        if slot.spec.dtype == DataType::Bool && values.iter().flatten().any(|byte| *byte > 1) {
            return Err(slot.wrong("data", "holds a byte that is no BOOL; expected 0 or 1"));
        }
        self.values[slot.index] = Some(values);
        Ok(())
    }

    /// The request asks for the output number `position` of its list.
    pub(crate) fn want(&mut self, position: usize, name: &str, binary: bool) -> Result<(), ApiError> {
        let wrong = |message: fmt::Arguments<'_>| ApiError::invalid(format_args!("outputs[{position}].name"), message);
        let outputs = self.interface.outputs;
        let Some(index) = outputs.iter().position(|spec| spec.name == name) else {
            return Err(wrong(format_args!("the model has no output `{name}`; it has {}", names(outputs))));
        };
        if self.outputs.iter().any(|other| other.index == index) {
            return Err(wrong(format_args!("output `{name}` is asked for twice")));
        }
        self.outputs.push(WantedOutput { index, binary });
        Ok(())
    }

    /// The request ends. One that asked for no output gets all, in the form `binary`.
    pub(crate) fn finish(mut self, id: Option<String>, binary: bool) -> Result<InferRequest, ApiError> {
        let specs = self.interface.inputs;
        let missing = |spec: &TensorSpec| ApiError::invalid("inputs", format_args!("input `{}` is missing", spec.name));
        let inputs = self.values.into_iter().zip(specs).map(|(values, spec)| values.ok_or_else(|| missing(spec)));
        let inputs = inputs.collect::<Result<_, _>>()?;
        if self.outputs.is_empty() {
            self.outputs = (0..self.interface.outputs.len()).map(|index| WantedOutput { index, binary }).collect();
        }
        Ok(InferRequest { id, inputs, rows: self.rows.unwrap_or(0), outputs: self.outputs })
    }
}

fn names(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| format!("`{}`", spec.name)).collect::<Vec<_>>().join(", ")
}

/// Whether no value is a NaN or an infinity. A binary floating-point number is one if all bits of its exponent are set:
/// then, and only then, adding one to the exponent carries into the bit of the sign.
fn all_finite(values: &Pieces, dtype: DataType) -> bool {
    match dtype {
        DataType::Fp16 => all(values, |b| u32::from((u16::from_le_bytes(b) & 0x7fff) + 0x0400) << 16),
        DataType::Bf16 => all(values, |b| u32::from((u16::from_le_bytes(b) & 0x7fff) + 0x0080) << 16),
        DataType::Fp32 => all(values, |b| (u32::from_le_bytes(b) & 0x7fff_ffff) + 0x0080_0000),
        DataType::Fp64 => {
            all(values, |b| (((u64::from_le_bytes(b) & 0x7fff_ffff_ffff_ffff) + 0x0010_0000_0000_0000) >> 32) as u32)
        }
        _ => true,
    }
}

/// Whether `test` leaves the highest bit of every value of `N` bytes unset. Values may straddle pieces.
fn all<const N: usize>(values: &Pieces, test: impl Fn([u8; N]) -> u32) -> bool {
    const HIGHEST: u32 = 1 << 31;
    let mut held = [0; N];
    let mut have = 0;
    for piece in values.iter() {
        let mut piece = piece;
        if have > 0 {
            let take = (N - have).min(piece.len());
            held[have..have + take].copy_from_slice(&piece[..take]);
            have += take;
            piece = &piece[take..];
            if have < N {
                continue;
            }
            if test(held) & HIGHEST != 0 {
                return false;
            }
        }
        let (whole, tail) = piece.as_chunks();
        held[..tail.len()].copy_from_slice(tail);
        have = tail.len();
        if any(whole, &test) & HIGHEST != 0 {
            return false;
        }
    }
    true
}

/// The bits that `test` sets for any of the values, in registers as wide as there are.
fn any<const N: usize>(values: &[[u8; N]], test: impl Fn([u8; N]) -> u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn wide<const N: usize>(values: &[[u8; N]], test: impl Fn([u8; N]) -> u32) -> u32 {
            fold(values, test)
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { wide(values, test) };
        }
    }
    fold(values, test)
}

/// Without an early exit, so that the compiler can use those registers.
#[inline]
fn fold<const N: usize>(values: &[[u8; N]], test: impl Fn([u8; N]) -> u32) -> u32 {
    values.iter().fold(0, |bits, &value| bits | test(value))
}
