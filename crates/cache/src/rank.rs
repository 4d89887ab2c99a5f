//! How much a flight matters to those who wait for it.

use std::time::Instant;

/// What a waiter asks of the computation it waits for: how urgent it is, and until when an answer is of use.
///
/// A flight's rank is the [join](Rank::join) of the ranks of all who wait for it, so that the computation is neither
/// queued behind less urgent work than its most urgent waiter nor given up before its most patient one.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
/// use volley_cache::Rank;
///
/// let now = Instant::now();
/// let patient = Rank { urgency: 0, deadline: Some(now + Duration::from_millis(80)) };
/// let urgent = Rank { urgency: 3, deadline: Some(now + Duration::from_millis(10)) };
/// assert_eq!(patient.join(urgent), Rank { urgency: 3, deadline: patient.deadline });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// The larger, the more urgent.
    pub urgency: u8,
    /// After this instant the waiter has no use for an answer; `None` waits for ever.
    pub deadline: Option<Instant>,
}

impl Rank {
    /// The least rank that satisfies both: the higher urgency and the later deadline.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self {
            urgency: self.urgency.max(other.urgency),
            deadline: self.deadline.zip(other.deadline).map(|(mine, theirs)| mine.max(theirs)),
        }
    }

    /// Whether this rank asks for more than `other` does, in urgency or in time.
    #[must_use]
    pub fn exceeds(self, other: Self) -> bool {
        other.join(self) != other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn no_deadline_is_the_latest_deadline() {
        let patient = Rank { urgency: 1, deadline: None };
        let hurried = Rank { urgency: 1, deadline: Some(Instant::now()) };
        assert_eq!(patient.join(hurried), patient);
        assert_eq!(hurried.join(patient), patient);
        assert!(patient.exceeds(hurried));
        assert!(!hurried.exceeds(patient));
    }

    #[test]
    fn a_rank_exceeds_another_by_urgency_or_by_deadline_alone() {
        let now = Instant::now();
        let base = Rank { urgency: 1, deadline: Some(now) };
        assert!(!base.exceeds(base));
        assert!(Rank { urgency: 2, ..base }.exceeds(base));
        assert!(Rank { urgency: 0, deadline: Some(now + Duration::from_nanos(1)) }.exceeds(base));
        assert!(!Rank { urgency: 0, ..base }.exceeds(base));
    }
}
