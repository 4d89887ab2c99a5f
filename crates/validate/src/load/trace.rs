//! Recorded send times.

use std::num::ParseFloatError;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// Send times from the start of a recording, never decreasing, at least one.
///
/// As text: seconds, one number a line, fractions allowed; empty lines and what follows `#` are left out.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use volley_validate::load::Trace;
///
/// let trace: Trace = "# market open\n0\n0.0125\n0.0125\n1.5\n".parse()?;
/// assert_eq!(trace.offsets().len(), 4);
/// assert_eq!(trace.offsets()[1], Duration::from_micros(12_500));
/// # Ok::<(), volley_validate::load::TraceError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    offsets: Vec<Duration>,
}

impl Trace {
    /// The send times.
    #[must_use]
    pub fn offsets(&self) -> &[Duration] {
        &self.offsets
    }

    /// The shortest window, from the start of the recording, that holds all of it.
    #[must_use]
    pub fn span(&self) -> Duration {
        // A window does not include its end, so it ends just after the last arrival.
        self.offsets.last().map_or(Duration::ZERO, |last| last.saturating_add(Duration::from_nanos(1)))
    }

    /// How many requests are due from `start`, up to but not including `end`.
    #[must_use]
    pub fn count_within(&self, start: Duration, end: Duration) -> usize {
        let before = |moment: Duration| self.offsets.partition_point(|at| *at < moment);
        before(end).saturating_sub(before(start))
    }
}

impl FromStr for Trace {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut offsets: Vec<Duration> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or_default().trim();
            if content.is_empty() {
                continue;
            }
            let line = index + 1;
            let seconds: f64 =
                content.parse().map_err(|source| TraceError::Number { line, given: content.to_owned(), source })?;
            let offset = Duration::try_from_secs_f64(seconds)
                .map_err(|_| TraceError::Range { line, given: content.to_owned() })?;
            if offsets.last().is_some_and(|last| offset < *last) {
                return Err(TraceError::Order { line, given: content.to_owned() });
            }
            offsets.push(offset);
        }
        if offsets.is_empty() {
            return Err(TraceError::Empty);
        }
        Ok(Self { offsets })
    }
}

/// Why a text is no trace. Lines are counted from one.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum TraceError {
    /// A line holds something else than a number.
    #[error("line {line} of the trace is '{given}', not a number of seconds: {source}")]
    Number {
        /// Where.
        line: usize,
        /// What stands there.
        given: String,
        /// What the parser said.
        source: ParseFloatError,
    },
    /// A number is negative, not finite or too large for a time.
    #[error("line {line} of the trace is '{given}': a send time must be zero or more seconds")]
    Range {
        /// Where.
        line: usize,
        /// What stands there.
        given: String,
    },
    /// Times go backwards.
    #[error("line {line} of the trace, '{given}', is before the line above it: send times must not decrease")]
    Order {
        /// Where.
        line: usize,
        /// What stands there.
        given: String,
    },
    /// No line holds a time.
    #[error("the trace holds no send time: write one number of seconds a line")]
    Empty,
}

#[cfg(test)]
mod tests {
    use super::super::Arrivals;
    use super::*;

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        let cases = [
            ("0\nsoon\n", "line 2 of the trace is 'soon'"),
            ("-1", "line 1"),
            ("NaN", "line 1"),
            ("1e300", "line 1"),
            ("1\n# fine\n\n0.5", "line 4"),
            ("# nothing\n", "no send time"),
        ];
        for (text, expected) in cases {
            let message = text.parse::<Trace>().unwrap_err().to_string();
            assert!(message.contains(expected), "'{message}' should say '{expected}'");
        }
    }

    #[test]
    fn a_trace_is_replayed_whole_within_its_span() {
        let trace: Trace = "0.5\n1\n1\n2".parse().unwrap();
        let (start, span) = (Duration::from_secs(1), trace.span());
        assert_eq!(trace.count_within(Duration::ZERO, span), 4);
        assert_eq!(trace.count_within(start, Duration::from_secs(2)), 2);
        assert_eq!(trace.count_within(span, start), 0);
        let arrivals = Arrivals::Trace(trace.clone());
        assert_eq!(arrivals.schedule(span).collect::<Vec<_>>(), trace.offsets());
    }
}
