//! What is wrong with a configuration in TOML, in the words of whoever wrote it: line, column, field, and what was
//! expected there.

use serde::de::DeserializeOwned;
use toml::Table;

/// Reads a configuration.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map(|span| place_of(text, span.start)).unwrap_or_default();
        let message = plainly(error.message());
        match wrong_field::<T>(text).filter(|_| !message.starts_with("unknown field")) {
            Some(field) => format!("{place}{field}: {message}"),
            None => format!("{place}{message}"),
        }
    })
}

/// The same with the line of `field` before it, if it is there.
pub(crate) fn at_field(text: &str, field: &str, message: &str) -> String {
    let says = |line: &str| {
        let line = line.trim_start().trim_start_matches('[').trim_start();
        line.strip_prefix(field).is_some_and(|rest| rest.trim_start().starts_with(['=', '.', ']']))
    };
    match text.lines().position(says) {
        Some(above) => format!("{}:1: {message}", above + 1),
        None => message.to_owned(),
    }
}

/// The field that cannot be what it is: each is read without the others.
fn wrong_field<T: DeserializeOwned>(text: &str) -> Option<String> {
    let fields: Table = text.parse().ok()?;
    let wrong =
        |name: &str, value: &toml::Value| Table::from_iter([(name.to_owned(), value.clone())]).try_into::<T>().is_err();
    fields.iter().find(|(name, value)| wrong(name, value)).map(|(name, _)| name.clone())
}

/// The line and column of a byte, as they start a message.
fn place_of(text: &str, byte: usize) -> String {
    let before = text.get(..byte).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{line}:{column}: ")
}

/// What serde says, without the names of Rust's types.
fn plainly(message: &str) -> String {
    let mismatch = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = mismatch.and_then(|text| text.rsplit_once(", expected ")) else {
        return message.replacen(", expected ", "; expected ", 1);
    };
    let found = match found {
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        _ => format!("the {}", found.replacen("floating point", "number", 1)),
    };
    let expected = match expected {
        "a nonzero usize" => "a whole number of at least 1",
        "usize" | "u64" => "a whole number of at least 0",
        "i64" => "a whole number",
        "f32" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "path string" => "a path, as a string",
        table if table.starts_with("struct ") => "a table",
        other => other,
    };
    format!("{found}; expected {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    #[test]
    fn what_does_not_fit_is_named_with_its_line_its_field_and_what_was_expected() {
        for (text, expected) in [
            ("max_batch = \"8\"", "1:13: max_batch: the string \"8\"; expected a whole number of at least 1"),
            ("\nmax_batch = 0", "2:13: max_batch: the integer `0`; expected a whole number of at least 1"),
            ("max_batch = 1.5", "1:13: max_batch: the number `1.5`; expected a whole number of at least 1"),
            ("batch_sizes = [1,\n \"8\"]", "2:2: batch_sizes: the string \"8\"; expected a whole number of at least 1"),
            ("batch_sizes = 8", "1:15: batch_sizes: the integer `8`; expected a list"),
            ("variants = [\"a\", 1]", "1:18: variants: the integer `1`; expected a string"),
            ("golden_tolerance = \"low\"", "1:20: golden_tolerance: the string \"low\"; expected a number"),
            ("allow_non_finite = 1", "1:20: allow_non_finite: the integer `1`; expected true or false"),
            ("operator_libraries = [1]", "1:23: operator_libraries: the integer `1`; expected a path, as a string"),
            ("ensemble = 1", "1:12: ensemble: the integer `1`; expected a table"),
            ("ensemble = {}", "1:12: ensemble: missing field `members`"),
            (
                "max_batch = 1\n[[inputs]]\nname = \"x\"\ndata_type = \"FP32\"\nrow_shape = [\"a\"]",
                "5:14: inputs: the string \"a\"; expected a whole number",
            ),
            (
                "version_policy = { specific = [-1] }",
                "version_policy: the integer `-1`; expected a whole number of at least 0",
            ),
            ("version_policy = \"newest\"", "1:18: version_policy: unknown variant `newest`; expected one of `all`"),
        ] {
            let error = read::<ModelConfig>(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
            let words = ["usize", "u64", "i64", "f32", "invalid", "sequence", "struct", "enum", "map"];
            assert!(words.iter().all(|word| !error.contains(word)), "{error}");
        }
    }

    #[test]
    fn a_field_is_found_in_each_of_the_ways_to_write_it() {
        for (text, line) in [
            ("a = 1\nfield=2", "2:1: "),
            ("field_of = 1\n  field.b = 2", "2:1: "),
            ("[field]\nb = 1", "1:1: "),
            ("\n\n[[ field ]]", "3:1: "),
            ("# field = 1\nother = 1", ""),
        ] {
            assert_eq!(at_field(text, "field", "it is wrong"), format!("{line}it is wrong"));
        }
    }
}
