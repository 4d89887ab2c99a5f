//! What a step reads of its rows.

/// The activations of a step, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    /// [batch, steps, inputs]
    pub(super) input: &'a [u8],
    pub(super) inputs: usize,
    pub(super) steps: usize,
    /// Which of the steps it is.
    pub(super) step: usize,
    /// [batch, units]
    pub(super) hidden: &'a [u8],
    pub(super) units: usize,
}

impl<'a> Step<'a> {
    pub(super) fn input(&self, row: usize) -> &'a [u8] {
        &self.input[(row * self.steps + self.step) * self.inputs..][..self.inputs]
    }

    pub(super) fn hidden(&self, row: usize) -> &'a [u8] {
        &self.hidden[row * self.units..][..self.units]
    }
}
