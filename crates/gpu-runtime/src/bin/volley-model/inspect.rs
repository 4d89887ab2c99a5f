//! What a file is and what becomes of it.

use std::error::Error;
use std::io::{Write, stdout};

use crate::Verdict;
use crate::subject::Subject;
use crate::table::table;

pub(crate) fn run(subject: &Subject) -> Result<Verdict, Box<dyn Error>> {
    let mut out = stdout().lock();
    for variant in &subject.version.variants {
        // The first load keeps the optimised graph, where that is possible; the second sees its operators.
        subject.load(variant)?;
        let model = subject.load(variant)?;
        let bytes = model.file_bytes().map(<[u8]>::len).sum::<usize>();
        writeln!(out, "{}: {} ({bytes} bytes, {})", variant.name, variant.path.display(), model.placement())?;
        for (kind, specs) in [("input", model.inputs()), ("output", model.outputs())] {
            for spec in specs.iter() {
                writeln!(out, "  {kind:6}  {spec}")?;
            }
        }
        let (best, rate) = (model.best_batch(), model.rows_per_second());
        writeln!(out, "  record  best batch {best}, {rate:.0} rows/s")?;
        let operators = model.placement().operators.iter().map(|placed| {
            let bits = if placed.runs_in_eight_bits() { "yes" } else { "" };
            [format!("  {}", placed.operator), placed.nodes.to_string(), placed.provider.clone(), bits.to_owned()]
        });
        let operators: Vec<_> = operators.collect();
        writeln!(out, "{}", table(["  operator", "nodes", "provider", "eight bits"], &operators))?;
    }
    Ok(Verdict::Good)
}
