//! The priority lanes, as a label.

/// The lane that a request was submitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Served first.
    Critical,
    /// Before normal.
    High,
    /// The default.
    Normal,
    /// Served last.
    Low,
}

impl Lane {
    /// All lanes, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The value of the label `lane`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// One `T` for each lane.
#[derive(Debug)]
pub(crate) struct PerLane<T>([T; 4]);

impl<T> PerLane<T> {
    pub(crate) fn new(make: impl FnMut(Lane) -> T) -> Self {
        Self(Lane::ALL.map(make))
    }

    pub(crate) fn of(&self, lane: Lane) -> &T {
        &self.0[lane as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_finds_its_own() {
        let names = PerLane::new(Lane::as_str);
        assert!(Lane::ALL.iter().all(|lane| *names.of(*lane) == lane.as_str()));
    }
}
