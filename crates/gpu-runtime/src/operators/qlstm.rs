//! The operator `QLstm`: its place in a graph, and what it refuses.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::{PrimitiveTensorElementType, Tensor, TensorElementType};

use super::cells::HIDDEN_ZERO_POINT;
use super::instructions::Instructions;
use super::lstm::{Lstm, Memory};
use super::weights::{GATES, Matrix, UNITS};

/// A forward LSTM over activations and weights of eight bits, with the last hidden state as its output.
///
/// | input | type | shape | |
/// |---|---|---|---|
/// | `X` | uint8 | [batch, steps, inputs] | quantised with `input_zero_point`; its scale is part of `scale` |
/// | `W` | int8 | [4 * units, inputs + units] | weights for the input and for the hidden state; constant |
/// | `scale` | float | [4 * units] | constant, positive |
/// | `bias` | float | [4 * units] | constant |
///
/// Its output is float [batch, units]. Rows of `W` are gates in ONNX's order (input, output, forget, cell), all units of
/// one before the next. With `q = round(127 * h) + 128` for the hidden state `h`, which is zero at first, the argument of
/// each gate's function is
///
/// ```text
/// bias + scale * (2^input_shift * Wx * (x - input_zero_point) + Wh * (q - 128))
/// ```
///
/// The sums are exact, and a row's answer is the same bits whatever else is in the batch.
///
/// Attributes, both integers, 0 unless given: `input_zero_point`, and `input_shift`, which lets the weights for the input
/// and for the hidden state differ in size and share a scale.
pub(super) struct QLstm;

impl Operator for QLstm {
    type Kernel<'attr> = QLstmKernel;

    fn name(&self) -> &str {
        "QLstm"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::{Float32, Int8, Uint8};
        [Uint8, Int8, Float32, Float32].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<QLstmKernel> {
        let (shape, weights) = constant::<i8>(context, 1, "W")?;
        let [rows, columns] = shape[..] else {
            return Err(refused(format!("W has the shape {shape:?}; expected [4 * units, inputs + units]")));
        };
        let units = rows / GATES;
        if units * GATES != rows || units == 0 || !units.is_multiple_of(UNITS) {
            return Err(refused(format!(
                "W has {rows} rows; expected 4 for each unit, of which there are {UNITS} or a multiple"
            )));
        }
        let inputs = columns.checked_sub(units).filter(|inputs| inputs.is_multiple_of(4)).ok_or_else(|| {
            refused(format!(
                "W has {columns} columns; expected a multiple of 4 for the input and {units} for the hidden state"
            ))
        })?;
        let of_rows = |index, name| match constant::<f32>(context, index, name)? {
            (shape, values) if shape == [rows] && values.iter().all(|value| value.is_finite()) => Ok(values),
            (shape, _) => {
                Err(refused(format!("{name} has the shape {shape:?}; expected [{rows}], and finite numbers")))
            }
        };
        let (scale, bias) = (of_rows(2, "scale")?, of_rows(3, "bias")?);
        let attribute = |name| context.get::<i64>(name).unwrap_or(0);
        let input_zero_point =
            u8::try_from(attribute("input_zero_point")).map_err(|_| refused("input_zero_point must be 0 to 255"))?;
        // The largest sum there can be must fit 32 bits, or it would wrap around.
        let input_shift = u32::try_from(attribute("input_shift"))
            .ok()
            .filter(|&shift| shift < 16 && ((inputs << shift) + units) * 255 * 128 <= i32::MAX as usize)
            .ok_or_else(|| refused("input_shift is negative, or so large that sums would not fit 32 bits"))?;
        let matrix = Matrix {
            weights: &weights,
            inputs,
            units,
            input_shift,
            input_zero_point,
            hidden_zero_point: HIDDEN_ZERO_POINT,
        };
        Ok(QLstmKernel { lstm: Lstm::new(&matrix, &scale, &bias, Instructions::detect()), memory: Mutex::default() })
    }
}

/// A node of a session. ONNX Runtime may run one session on several threads at once, hence the lock.
pub(super) struct QLstmKernel {
    lstm: Lstm,
    memory: Mutex<Memory>,
}

impl Kernel for QLstmKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let input = context.input(0)?.ok_or_else(|| refused("X is missing"))?;
        let (shape, input) = input.try_extract_tensor::<u8>()?;
        let inputs = self.lstm.inputs() as i64;
        let &[batch, steps, width] = &shape[..] else {
            return Err(refused(format!("X has the shape {shape:?}; expected [batch, steps, {inputs}]")));
        };
        if width != inputs {
            return Err(refused(format!("X is {width} wide; its weights are for {inputs}")));
        }
        let mut last =
            context.output(0, [batch, self.lstm.units() as i64])?.ok_or_else(|| refused("its output is missing"))?;
        let (_, last) = last.try_extract_tensor_mut::<f32>()?;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        self.lstm.run(input, steps as usize, last, &mut memory);
        Ok(())
    }
}

/// The shape and the values of an input that must be constant.
fn constant<T>(context: &KernelContext<'_>, index: usize, name: &str) -> ort::Result<(Vec<usize>, Vec<T>)>
where
    T: PrimitiveTensorElementType + std::fmt::Debug + Clone,
{
    let value = context
        .constant_input::<ort::value::TensorValueType<T>>(index)
        .map_err(|e| refused(format!("{name} must be a constant: {e}")))?;
    let _: &Tensor<T> = &value;
    let (shape, values) = value.extract_tensor();
    Ok((shape.iter().map(|&axis| axis as usize).collect(), values.to_vec()))
}

fn refused(text: impl Display) -> ort::Error {
    ort::Error::new(format!("QLstm: {text}"))
}
