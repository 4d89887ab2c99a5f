//! How far the device's answers are from the processor's.

use std::error::Error;

use serde_json::json;

use crate::candidate::Candidate;
use crate::golden::{Golden, largest_difference};
use crate::ladder::{Ladder, Step, Verdict};

/// Rows that are compared: the golden ones.
const ROWS: usize = 16;

/// The largest difference that is right for a variant. Outputs lie in (-1, 1).
///
/// For fp32 it is what the server's golden check allows, so that what passes here is served. cuDNN may multiply in
/// TensorFloat-32, whose ten binary digits of fraction allow about 1e-3. In fp16 everything has those digits, and
/// errors add up over the steps of the LSTM. In int8 a rounding to the other side moves a value by one step in 255.
fn tolerance(variant: &str) -> f32 {
    match variant {
        "fp32" => 1e-3,
        "fp16" => 1e-2,
        _ => 2e-2,
    }
}

pub(crate) fn check(ladder: &mut Ladder, candidates: &[Candidate], golden: &Golden) {
    for candidate in candidates {
        let difference = difference(candidate, golden);
        if let Ok((alone, together)) = &difference {
            ladder.figure(&format!("{}_max_abs_diff", candidate.name), json!(alone.max(*together)));
        }
        let verdict = difference.map(|(alone, together)| {
            let tolerance = tolerance(candidate.name);
            let seen = format!("off by {alone:.1e} alone, {together:.1e} in a batch; at most {tolerance:.0e} is right");
            // NaN must fail, so both are compared for "within".
            Verdict::of(alone <= tolerance && together <= tolerance, seen)
        });
        ladder.add(Step::Correctness, candidate.name, verdict);
    }
}

/// The largest difference of the golden rows, each alone, and all in one batch.
fn difference(candidate: &Candidate, golden: &Golden) -> Result<(f32, f32), Box<dyn Error>> {
    let (mut device, mut cpu) = (candidate.on_device.open_session()?, candidate.on_cpu.open_session()?);
    let right = golden.answers(&candidate.on_cpu, &mut cpu, ROWS, 1)?;
    let mut of = |batch| -> Result<f32, Box<dyn Error>> {
        Ok(largest_difference(&golden.answers(&candidate.on_device, &mut device, ROWS, batch)?, &right))
    };
    Ok((of(1)?, of(ROWS)?))
}
