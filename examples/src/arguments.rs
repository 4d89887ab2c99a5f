//! What a benchmark is told on its command line: pairs of a name and a value.

use std::error::Error;
use std::fmt::{Display, Write as _};
use std::io::{Write as _, stdout};
use std::path::Path;
use std::str::FromStr;

/// The arguments of this process. What is taken from them is what they may say, so that the usage needs no second list.
///
/// ```
/// use volley_examples::Arguments;
/// let mut arguments = Arguments::of_this_process();
/// let rounds = arguments.take("--rounds", 5, "how often each side is measured");
/// arguments.finish()?;
/// assert_eq!(rounds, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Arguments {
    /// Not taken yet.
    given: Vec<(String, String)>,
    asks_for_help: bool,
    usage: String,
    first_wrong: Option<String>,
}

impl Arguments {
    /// Those that the program was started with.
    #[must_use]
    pub fn of_this_process() -> Self {
        let mut words = std::env::args();
        let program = words.next().unwrap_or_default();
        let name = Path::new(&program).file_name().unwrap_or_default();
        Self::read(&name.to_string_lossy(), words)
    }

    fn read(program: &str, mut words: impl Iterator<Item = String>) -> Self {
        let mut arguments = Self { usage: format!("usage: {program} [NAME VALUE] ...\n"), ..Self::default() };
        while let Some(name) = words.next() {
            if name == "--help" {
                arguments.asks_for_help = true;
            } else if let Some(value) = words.next() {
                arguments.given.push((name, value));
            } else {
                arguments.first_wrong.get_or_insert(format!("{name} needs a value"));
            }
        }
        arguments
    }

    /// The value of `name`, or `default` where it was not said; `what` it is goes into the usage.
    pub fn take<T: FromStr<Err: Display> + Display>(&mut self, name: &str, default: T, what: &str) -> T {
        let _ = writeln!(self.usage, "  {name:<16} {what} ({default})");
        let Some(at) = self.given.iter().position(|(given, _)| given == name) else { return default };
        let (_, value) = self.given.remove(at);
        value.parse().unwrap_or_else(|error| {
            self.first_wrong.get_or_insert(format!("{name}: {value:?}: {error}"));
            default
        })
    }

    /// To be called when everything was taken. Where help was asked for, prints the usage and ends the process.
    ///
    /// # Errors
    /// When a value was missing or not of its kind, or something was said that nobody took.
    pub fn finish(self) -> Result<(), Box<dyn Error>> {
        if self.asks_for_help {
            write!(stdout(), "{}", self.usage)?;
            std::process::exit(0);
        }
        self.first_mistake().map_or(Ok(()), |wrong| Err(format!("{wrong}; --help shows what can be said").into()))
    }

    fn first_mistake(self) -> Option<String> {
        let left = self.given.into_iter().next();
        self.first_wrong.or_else(|| left.map(|(name, _)| format!("{name} is not known, or was said twice")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Arguments {
        Arguments::read("bench", line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn values_are_taken_by_name_in_any_order_and_defaults_stand_where_nothing_was_said() {
        let mut given = arguments("--seconds 2.5 --only mosec");
        assert_eq!(given.take("--only", "all".to_owned(), "who"), "mosec");
        assert_eq!(given.take("--rounds", 3, "how often"), 3);
        assert_eq!(given.take("--seconds", 1.0, "how long"), 2.5);
        assert_eq!(given.first_mistake(), None);
    }

    #[test]
    fn a_mistake_is_told_by_name() {
        for (line, said) in [
            ("--rounds", "--rounds needs a value"),
            ("--rounds many", "--rounds: \"many\": invalid digit found in string"),
            ("--round 3", "--round is not known, or was said twice"),
            ("--rounds 3 --rounds 4", "--rounds is not known, or was said twice"),
        ] {
            let mut given = arguments(line);
            given.take("--rounds", 3, "how often");
            assert_eq!(given.first_mistake().as_deref(), Some(said), "{line}");
        }
    }

    #[test]
    fn the_usage_names_what_is_taken_with_its_default() {
        let mut given = arguments("--help");
        given.take("--rounds", 3, "how often");
        assert!(given.asks_for_help);
        assert_eq!(given.usage, "usage: bench [NAME VALUE] ...\n  --rounds         how often (3)\n");
    }
}
