//! What becomes of a batch that does not fit into the memory that a session may take.

use std::error::Error;
use std::num::NonZeroUsize;

use serde_json::json;
use volley_gpu_runtime::{Library, Model, ModelOptions, Provider, VersionFolder};

use crate::candidate::{Candidate, on};
use crate::golden::{Golden, largest_difference};
use crate::ladder::{Ladder, Step, Verdict};

/// Rows of the batch; its input alone takes 12 MB.
const ROWS: usize = 1024;
/// Memory that the session may take, in MiB, one after the other.
const LIMITS: [usize; 7] = [128, 64, 32, 16, 8, 4, 2];
/// As for the fp32 variant's correctness.
const TOLERANCE: f32 = 1e-3;

/// Takes memory away until the batch is run in parts, and looks whether its answers stay right.
pub(crate) fn squeeze(
    ladder: &mut Ladder,
    library: &Library,
    provider: Provider,
    version: &VersionFolder,
    candidates: &[Candidate],
    golden: &Golden,
) {
    let verdict = match candidates.iter().find(|candidate| candidate.name == "fp32") {
        _ if provider == Provider::Cpu => Verdict::Skipped("the processor has no arena that could be limited".into()),
        None => Verdict::Skipped(format!("fp32 does not run on {provider}")),
        Some(candidate) => {
            let seen = under_limits(library, provider, version, candidate, golden);
            if let Ok(Some(Squeezed { limit, row_limit, .. })) = seen {
                ladder.figure("oom_limit_mib", json!(limit));
                ladder.figure("oom_row_limit", json!(row_limit));
            }
            seen.map(|seen| verdict(seen.as_ref())).into()
        }
    };
    ladder.add(Step::OutOfMemory, "", verdict);
}

/// The first limit, in MiB, under which the batch did not run whole.
struct Squeezed {
    limit: usize,
    row_limit: usize,
    difference: f32,
}

fn verdict(squeezed: Option<&Squeezed>) -> Verdict {
    match squeezed {
        Some(Squeezed { limit, row_limit, difference }) => Verdict::of(
            *difference <= TOLERANCE,
            format!(
                "with {limit} MiB a batch of {ROWS} ran in parts of at most {row_limit} rows, answers off by \
                 {difference:.1e}; at most {TOLERANCE:.0e} is right"
            ),
        ),
        None => Verdict::Failed(format!("no limit down to {} MiB made a batch of {ROWS} run in parts", LIMITS[6])),
    }
}

fn under_limits(
    library: &Library,
    provider: Provider,
    version: &VersionFolder,
    candidate: &Candidate,
    golden: &Golden,
) -> Result<Option<Squeezed>, Box<dyn Error>> {
    let mut cpu = candidate.on_cpu.open_session()?;
    let batch = cpu.max_rows();
    let right = golden.answers(&candidate.on_cpu, &mut cpu, ROWS, batch)?;
    for limit in LIMITS {
        let options = ModelOptions {
            gpu_memory_limit: Some(limit << 20),
            // Else loading would run the largest batch, and learn the limit unseen.
            batch_sizes: vec![NonZeroUsize::MIN],
            ..on(provider, ROWS)
        };
        let model = Model::load(library, version, &candidate.file, options)
            .map_err(|error| format!("with {limit} MiB: {error}; with more a batch of {ROWS} ran whole"))?;
        let mut session = model.open_session()?;
        let answers = golden.answers(&model, &mut session, ROWS, ROWS)?;
        let row_limit = session.row_limit();
        if row_limit < ROWS {
            return Ok(Some(Squeezed { limit, row_limit, difference: largest_difference(&answers, &right) }));
        }
    }
    Ok(None)
}
