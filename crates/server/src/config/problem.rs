//! What is wrong with a configuration, all of it at once.

use std::fmt;

use super::leaves::{Leaves, Origin};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where it was said.
    pub origin: Origin,
    /// The setting; empty where it is not about one.
    pub path: String,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}

/// Everything that is wrong with a configuration: where each was said, which setting it is, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub(crate) problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problems[..] {
            [only] => write!(f, "the configuration is wrong: {only}"),
            several => {
                write!(f, "the configuration is wrong in {} places:", several.len())?;
                several.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Collects what sections find wrong with values that are of the right kind.
#[derive(Debug, Default)]
pub(super) struct Complaints(Vec<(String, String)>);

impl Complaints {
    /// The setting at `path` is wrong: `text` says its value, and what would be right.
    pub(super) fn add(&mut self, path: impl Into<String>, text: impl fmt::Display) {
        self.0.push((path.into(), text.to_string()));
    }

    /// With where each setting was said.
    pub(super) fn located(self, leaves: &Leaves) -> impl Iterator<Item = Problem> {
        self.0.into_iter().map(|(path, text)| Problem { origin: leaves.origin_of(&path), path, text })
    }
}
