//! What a server would do at its first start, done beforehand.

use std::error::Error;
use std::io::{Write, stdout};

use crate::Verdict;
use crate::subject::Subject;
use crate::table::table;

pub(crate) fn run(subject: &Subject) -> Result<Verdict, Box<dyn Error>> {
    let mut rows = Vec::new();
    for variant in &subject.version.variants {
        let model = subject.compile(variant)?;
        for size in model.measured() {
            let best = if size.rows == model.best_batch().get() { "best" } else { "" };
            let (took, rate) = (size.seconds * 1e6, size.rows_per_second());
            rows.push([
                variant.name.clone(),
                size.rows.to_string(),
                format!("{took:.0}"),
                format!("{rate:.0}"),
                best.into(),
            ]);
        }
    }
    writeln!(stdout(), "{}", table(["variant", "batch", "us", "rows/s", ""], &rows))?;
    Ok(Verdict::Good)
}
