//! How urgent a request is.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// How urgent a request is; each priority has a bounded lane of its own.
///
/// Smaller is more urgent, so `Critical < Low`. Waiting raises a request's *effective* priority by one lane per
/// [`Config::aging_interval`](crate::Config::aging_interval), so that none of them starves.
///
/// # Examples
///
/// ```
/// use volley_scheduler::Priority;
///
/// assert_eq!("high".parse(), Ok(Priority::High));
/// assert_eq!(Priority::default().to_string(), "normal");
/// assert!(Priority::Critical < Priority::Low);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Before everything else.
    Critical,
    /// Before normal work.
    High,
    /// What a request gets that asks for nothing.
    #[default]
    Normal,
    /// Work that may wait for everything else, but not for ever.
    Low,
}

impl Priority {
    /// How many priorities, and therefore lanes, there are.
    pub const COUNT: usize = 4;

    /// Every priority, the most urgent first.
    pub const ALL: [Self; Self::COUNT] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The lane's number: 0 for critical to 3 for low.
    #[must_use]
    pub const fn lane(self) -> usize {
        self as usize
    }

    /// The name that [`FromStr`] reads and [`fmt::Display`] writes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(name: &str) -> Result<Self, UnknownPriority> {
        Self::ALL
            .into_iter()
            .find(|priority| priority.name() == name)
            .ok_or_else(|| UnknownPriority { name: name.to_owned() })
    }
}

/// A word that names no [`Priority`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPriority {
    name: String,
}

impl fmt::Display for UnknownPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown priority {:?}: expected critical, high, normal or low", self.name)
    }
}

impl Error for UnknownPriority {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_as_the_priority_that_wrote_it() {
        for priority in Priority::ALL {
            assert_eq!(priority.to_string().parse(), Ok(priority));
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_that_would_do() {
        let error = "urgent".parse::<Priority>().expect_err("no such priority");
        assert_eq!(error.to_string(), "unknown priority \"urgent\": expected critical, high, normal or low");
    }
}
