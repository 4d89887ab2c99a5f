//! The golden check of every variant.

use std::error::Error;
use std::io::{Write, stdout};

use crate::Verdict;
use crate::subject::Subject;
use crate::table::table;

pub(crate) fn run(subject: &Subject) -> Result<Verdict, Box<dyn Error>> {
    let Some(golden) = &subject.version.golden else {
        let expected = subject.version.path.join("golden.safetensors");
        return Err(format!("nothing to hold the variants against; expected {}", expected.display()).into());
    };
    let mut verdict = Verdict::Good;
    let mut rows = Vec::new();
    for variant in &subject.version.variants {
        let (result, detail) = match subject.load(variant) {
            Ok(model) => ("pass", model.placement().to_string()),
            Err(error) => {
                verdict = Verdict::Bad;
                (error.reason(), error.to_string())
            }
        };
        rows.push([variant.name.clone(), result.to_owned(), detail]);
    }
    let tolerance = subject.options.golden_tolerance;
    writeln!(
        stdout(),
        "{}, within {tolerance:e}\n{}",
        golden.display(),
        table(["variant", "result", "detail"], &rows)
    )?;
    Ok(verdict)
}
