//! Request parameters: priority, deadline, cache, variant.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use volley_scheduler::Priority;

use crate::error::ApiError;

/// The `parameters` object of an inference request. Parameters not named here are left alone, as the protocol asks.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Parameters {
    priority: Option<Rank>,
    timeout: Option<u64>,
    /// `false` bypasses the result cache, in both directions.
    pub cache: Option<bool>,
    /// The variant to run; the model's default if absent.
    pub variant: Option<String>,
    /// Whether outputs that do not say otherwise are sent as raw bytes.
    pub binary_data_output: Option<bool>,
    return_uncertainty: Option<bool>,
    use_ensemble: Option<bool>,
    sequence_id: Option<Sequence>,
}

impl Parameters {
    /// The lane the request goes to.
    pub(crate) fn priority(&self) -> Priority {
        self.priority.map_or_else(Priority::default, |rank| rank.0)
    }

    /// The end-to-end deadline, counted from the request's arrival. Zero means none, as Triton has it.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout.filter(|&microseconds| microseconds > 0).map(Duration::from_micros)
    }

    /// Refuses what no served model can do, rather than ignore it.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        for (name, wanted) in [("return_uncertainty", self.return_uncertainty), ("use_ensemble", self.use_ensemble)] {
            if wanted == Some(true) {
                return Err(ApiError::invalid(format!("parameters.{name}"), "this model has no ensemble"));
            }
        }
        if self.sequence_id.as_ref().is_some_and(Sequence::is_set) {
            return Err(ApiError::invalid("parameters.sequence_id", "models here keep no state between requests"));
        }
        Ok(())
    }
}

/// A priority on the wire: Triton's integers or a lane's name.
#[derive(Debug, Clone, Copy)]
struct Rank(Priority);

impl<'de> Deserialize<'de> for Rank {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RankVisitor;

        impl Visitor<'_> for RankVisitor {
            type Value = Rank;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("0 (default), 1 (highest) to 4 (lowest), or one of critical, high, normal, low")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Rank, E> {
                Ok(Rank(match value {
                    0 => Priority::default(),
                    1 => Priority::Critical,
                    2 => Priority::High,
                    3 => Priority::Normal,
                    4 => Priority::Low,
                    _ => return Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)),
                }))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Rank, E> {
                value.parse().map(Rank).map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))
            }
        }

        deserializer.deserialize_any(RankVisitor)
    }
}

/// A sequence id on the wire: an integer or a string; 0 and the empty string mean none.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(untagged)]
enum Sequence {
    Number(u64),
    Name(String),
}

impl Sequence {
    fn is_set(&self) -> bool {
        match self {
            Self::Number(number) => *number != 0,
            Self::Name(name) => !name.is_empty(),
        }
    }
}
