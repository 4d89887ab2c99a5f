//! What can go wrong with one request, counted by kind.

use std::collections::BTreeMap;
use std::fmt;

/// The ways a request fails, as the client sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// No connection could be opened.
    Connect,
    /// The connection broke before the whole reply had arrived.
    Disconnected,
    /// No whole reply before the client gave up.
    Timeout,
    /// An HTTP status other than 200.
    Status(u16),
    /// Status 200, but not the reply the model's metadata promises.
    MalformedReply,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Disconnected => f.write_str("disconnected"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(code) => write!(f, "status_{code}"),
            Self::MalformedReply => f.write_str("malformed_reply"),
        }
    }
}

/// One failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
    /// Whether the reply said when to come back.
    pub(crate) retry_after: bool,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: false }
    }

    /// Whether the server declined to do it now: by the statuses for that, or by saying when to come back.
    pub(crate) fn is_refusal(&self) -> bool {
        self.retry_after || matches!(self.kind, FailureKind::Status(429 | 503))
    }
}

/// How often a kind of failure happened, and what the first one said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureCount {
    /// Occurrences within the measured window.
    pub count: u64,
    /// Message of the first occurrence: enough to start looking, without a log of thousands.
    pub first_message: String,
}

/// Failures of a run by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures {
    by_kind: BTreeMap<FailureKind, FailureCount>,
}

impl Failures {
    pub(crate) fn add(&mut self, failure: Failure) {
        self.by_kind.entry(failure.kind).or_insert(FailureCount { count: 0, first_message: failure.message }).count +=
            1;
    }

    /// All failures together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_kind.values().map(|failures| failures.count).sum()
    }

    /// Occurrences of one kind.
    #[must_use]
    pub fn count(&self, kind: FailureKind) -> u64 {
        self.by_kind.get(&kind).map_or(0, |failures| failures.count)
    }

    /// Every kind that occurred, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (FailureKind, &FailureCount)> {
        self.by_kind.iter().map(|(kind, count)| (*kind, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_kind_and_the_first_message_is_kept() {
        let mut failures = Failures::default();
        failures.add(Failure::new(FailureKind::Status(503), "full"));
        failures.add(Failure::new(FailureKind::Status(503), "still full"));
        failures.add(Failure::new(FailureKind::Timeout, "gave up"));
        assert_eq!(failures.total(), 3);
        assert_eq!(failures.count(FailureKind::Status(503)), 2);
        assert_eq!(failures.count(FailureKind::Status(500)), 0);
        let listed: Vec<_> =
            failures.iter().map(|(kind, failure)| (kind.to_string(), failure.first_message.as_str())).collect();
        assert_eq!(listed, [("timeout".to_owned(), "gave up"), ("status_503".to_owned(), "full")]);
    }
}
