//! The operator `QLstm`: its place in a graph, and what it refuses.

use std::collections::TryReserveError;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::{PrimitiveTensorElementType, TensorElementType, TensorRef};

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
/// | `scale` | float | [4 * units] | constant, finite |
/// | `bias` | float | [4 * units] | constant, finite |
///
/// Its output is float [batch, units]. Rows of `W` are gates in ONNX's order (input, output, forget, cell), all units
/// of one before the next. With `q = round(127 * h) + 128` for the hidden state `h`, which is zero at first, the
/// argument of each gate's function is
///
/// ```text
/// bias + scale * (2^input_shift * Wx * (x - input_zero_point) + Wh * (q - 128))
/// ```
///
/// The sums are exact, and a row's answer is the same bits whatever else is in the batch. It runs on the CPU, on one
/// thread, also in a session of another provider.
///
/// Attributes, both integers, 0 unless given: `input_zero_point`, and `input_shift`, which lets the weights for the
/// input and for the hidden state differ in size and share a scale.
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
        let attribute = |name| context.get::<i64>(name).unwrap_or(0);
        let node = Node {
            weights: constant(context, 1, "W")?,
            scale: constant(context, 2, "scale")?,
            bias: constant(context, 3, "bias")?,
            input_zero_point: attribute("input_zero_point"),
            input_shift: attribute("input_shift"),
        };
        Ok(QLstmKernel { lstm: node.lstm().map_err(refused)?, memory: Mutex::default() })
    }
}

/// What a graph says of a node.
struct Node {
    weights: Constant<i8>,
    scale: Constant<f32>,
    bias: Constant<f32>,
    input_zero_point: i64,
    input_shift: i64,
}

struct Constant<T> {
    shape: Vec<usize>,
    values: Vec<T>,
}

impl Node {
    /// The LSTM, or what of the definition the node does not keep to.
    fn lstm(&self) -> Result<Lstm, String> {
        let shape = &self.weights.shape;
        let [rows, columns] = shape[..] else {
            return Err(format!("W has the shape {shape:?}; expected [4 * units, inputs + units]"));
        };
        let units = rows / GATES;
        if rows == 0 || !rows.is_multiple_of(GATES * UNITS) {
            return Err(format!("W has {rows} rows; expected 4 for each of {UNITS} units, or a multiple"));
        }
        let inputs = columns.checked_sub(units).filter(|inputs| inputs.is_multiple_of(4)).ok_or_else(|| {
            format!("W has {columns} columns; expected {units} for the hidden state and a multiple of 4 for the input")
        })?;
        for (name, Constant { shape, values }) in [("scale", &self.scale), ("bias", &self.bias)] {
            if shape[..] != [rows] {
                return Err(format!("{name} has the shape {shape:?}; expected [{rows}], as W has rows"));
            }
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(format!("{name} holds {value}; expected finite numbers"));
            }
        }
        let input_zero_point = u8::try_from(self.input_zero_point)
            .map_err(|_| format!("input_zero_point is {}; expected 0 to 255", self.input_zero_point))?;
        // The largest sum there can be must fit 32 bits, or it would wrap around.
        let fits = |shift: &u32| *shift < 16 && ((inputs << shift) + units) * 255 * 128 <= i32::MAX as usize;
        let input_shift = u32::try_from(self.input_shift).ok().filter(fits).ok_or_else(|| {
            format!("input_shift is {}; expected 0, or so little more that sums fit 32 bits", self.input_shift)
        })?;
        let matrix = Matrix {
            weights: &self.weights.values,
            inputs,
            units,
            input_shift,
            input_zero_point,
            hidden_zero_point: HIDDEN_ZERO_POINT,
        };
        Lstm::new(&matrix, &self.scale.values, &self.bias.values, Instructions::detect())
            .map_err(|error| no_memory(&error))
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
            return Err(refused(format_args!("X has the shape {shape:?}; expected [batch, steps, {inputs}]")));
        };
        if width != inputs {
            return Err(refused(format_args!("X is {width} wide; its weights are for {inputs}")));
        }
        let mut last =
            context.output(0, [batch, self.lstm.units() as i64])?.ok_or_else(|| refused("its output is missing"))?;
        let (_, last) = last.try_extract_tensor_mut::<f32>()?;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        // In ONNX Runtime's own words, by which the session knows it.
        let no_memory =
            |error| refused(format_args!("Failed to allocate memory for the state of {batch} rows: {error}"));
        self.lstm.run(input, steps as usize, last, &mut memory).map_err(no_memory)
    }
}

fn constant<T>(context: &KernelContext<'_>, index: usize, name: &str) -> ort::Result<Constant<T>>
where
    T: PrimitiveTensorElementType + fmt::Debug + Clone,
{
    let value: TensorRef<'_, T> =
        context.constant_input(index).map_err(|e| refused(format_args!("{name} must be a constant: {e}")))?;
    let (shape, values) = value.extract_tensor();
    let mut copy = Vec::new();
    copy.try_reserve_exact(values.len()).map_err(|error| refused(no_memory(&error)))?;
    copy.extend_from_slice(values);
    Ok(Constant { shape: shape.iter().map(|&axis| axis as usize).collect(), values: copy })
}

/// In ONNX Runtime's own words.
fn no_memory(error: &TryReserveError) -> String {
    format!("Failed to allocate memory for the weights: {error}")
}

fn refused(text: impl fmt::Display) -> ort::Error {
    ort::Error::new(format!("QLstm: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let of_rows = |value| Constant { shape: vec![64], values: vec![value; 64] };
        Node {
            weights: Constant { shape: vec![64, 24], values: vec![1; 64 * 24] },
            scale: of_rows(1e-3),
            bias: of_rows(0.0),
            input_zero_point: 255,
            input_shift: 3,
        }
    }

    #[test]
    fn a_node_that_keeps_to_the_definition_is_taken() {
        let lstm = node().lstm().expect("it keeps to it");
        assert_eq!((lstm.inputs(), lstm.units()), (8, 16));
    }

    #[test]
    fn what_a_node_may_not_say_is_refused_with_what_was_expected() {
        let refusal = |spoil: fn(&mut Node)| {
            let mut node = node();
            spoil(&mut node);
            node.lstm().expect_err("it is spoilt")
        };
        for (text, expected) in [
            (refusal(|node| node.weights.shape = vec![1, 64, 24]), "W has the shape [1, 64, 24]; expected [4 * units"),
            (refusal(|node| node.weights.shape = vec![96, 16]), "W has 96 rows; expected 4 for each of 16 units"),
            (refusal(|node| node.weights.shape = vec![0, 24]), "W has 0 rows"),
            (refusal(|node| node.weights.shape = vec![64, 12]), "W has 12 columns; expected 16 for the hidden state"),
            (refusal(|node| node.weights.shape = vec![64, 26]), "a multiple of 4 for the input"),
            (refusal(|node| node.scale.shape = vec![16]), "scale has the shape [16]; expected [64]"),
            (refusal(|node| node.bias.values[9] = f32::NAN), "bias holds NaN; expected finite"),
            (refusal(|node| node.input_zero_point = 256), "input_zero_point is 256; expected 0 to 255"),
            (refusal(|node| node.input_shift = -1), "input_shift is -1"),
            (refusal(|node| node.input_shift = 14), "input_shift is 14; expected 0, or so little more that sums fit"),
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
