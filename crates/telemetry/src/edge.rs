//! What is recorded of requests that never reach a model.

use crate::names;
use metrics::Counter;

/// Why a request was refused before a model was found for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// It could not be read.
    Malformed,
    /// Its body or its header exceeds the limit.
    TooLarge,
    /// It names a model or a version that is not served.
    UnknownModel,
    /// It carries no valid credentials, or too few rights.
    Unauthorized,
    /// The edge was at its limit of concurrent requests.
    Overloaded,
}

impl Rejection {
    /// All reasons.
    pub const ALL: [Self; 5] =
        [Self::Malformed, Self::TooLarge, Self::UnknownModel, Self::Unauthorized, Self::Overloaded];

    /// The value of the label `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::UnknownModel => "unknown_model",
            Self::Unauthorized => "unauthorized",
            Self::Overloaded => "overloaded",
        }
    }
}

/// Handles on the series of the server's edge.
#[derive(Debug)]
pub struct EdgeMetrics {
    rejections: [Counter; Rejection::ALL.len()],
}

impl EdgeMetrics {
    /// Handles with the recorder in force.
    #[must_use]
    pub fn register() -> Self {
        Self { rejections: Rejection::ALL.map(|reason| names::REJECTIONS.counter(&[reason.as_str()])) }
    }

    /// A request was refused.
    pub fn request_rejected(&self, reason: Rejection) {
        self.rejections[reason as usize].increment(1);
    }
}
