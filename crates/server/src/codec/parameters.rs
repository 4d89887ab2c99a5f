//! Request parameters: priority, deadline, cache, variant.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use volley_scheduler::Priority;

use crate::error::ApiError;

/// The `parameters` object of an inference request. Parameters not named here are left alone, as the protocol asks.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Parameters {
    priority: Option<Rank>,
    timeout: Option<Microseconds>,
    /// `false` bypasses the result cache, in both directions.
    pub cache: Option<bool>,
    /// The variant to run; the model's default if absent.
    pub variant: Option<String>,
    /// Whether outputs that do not say otherwise are sent as raw bytes.
    pub binary_data_output: Option<bool>,
    return_uncertainty: Option<bool>,
    use_ensemble: Option<bool>,
    sequence_id: Sequence,
}

impl Parameters {
    /// The lane the request goes to.
    pub(crate) fn priority(&self) -> Priority {
        self.priority.map_or_else(Priority::default, |rank| rank.0)
    }

    /// The end-to-end deadline, counted from the request's arrival. Zero means none, as Triton has it.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout.filter(|timeout| timeout.0 > 0).map(|timeout| Duration::from_micros(timeout.0))
    }

    /// The parameter that asks for an ensemble, if one does.
    pub(crate) fn ensemble(&self) -> Option<&'static str> {
        let uncertainty = self.wants_uncertainty().then_some("return_uncertainty");
        uncertainty.or((self.use_ensemble == Some(true)).then_some("use_ensemble"))
    }

    /// Whether the answer's uncertainty is to be among the outputs.
    pub(crate) fn wants_uncertainty(&self) -> bool {
        self.return_uncertainty == Some(true)
    }

    /// Refuses what no served model can do, rather than ignore it.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        if self.wants_uncertainty() && self.use_ensemble == Some(false) {
            let message = "true, where use_ensemble is false; the uncertainty is how far an ensemble's members differ";
            return Err(ApiError::invalid("parameters.return_uncertainty", message));
        }
        if self.sequence_id.is_set {
            return Err(ApiError::invalid("parameters.sequence_id", "models here keep no state between requests"));
        }
        Ok(())
    }
}

/// A time on the wire.
#[derive(Debug, Clone, Copy)]
struct Microseconds(u64);

impl<'de> Deserialize<'de> for Microseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar {
            expected: "microseconds, a whole number such as 50000",
            of_number: |value| Some(Self(value)),
            of_text: |_| None,
        })
    }
}

/// A priority on the wire: Triton's integers or a lane's name.
#[derive(Debug, Clone, Copy)]
struct Rank(Priority);

impl<'de> Deserialize<'de> for Rank {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar {
            expected: "0 (default), 1 (highest) to 4 (lowest), or one of critical, high, normal, low",
            of_number: |value| match value {
                0 => Some(Self(Priority::default())),
                1 => Some(Self(Priority::Critical)),
                2 => Some(Self(Priority::High)),
                3 => Some(Self(Priority::Normal)),
                4 => Some(Self(Priority::Low)),
                _ => None,
            },
            of_text: |value| value.parse().map(Self).ok(),
        })
    }
}

/// Reads a parameter, a number or a word, whose refusal says in words of its own what would be right.
struct Scalar<T> {
    expected: &'static str,
    of_number: fn(u64) -> Option<T>,
    of_text: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Scalar<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        (self.of_number)(value).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        Err(E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
        (self.of_text)(value).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
    }
}

/// Whether there is a sequence id: 0, the empty string and null mean none. Anything else is one, and is not kept.
#[derive(Debug, Clone, Copy, Default)]
struct Sequence {
    is_set: bool,
}

impl<'de> Deserialize<'de> for Sequence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SequenceVisitor).map(|is_set| Self { is_set })
    }
}

struct SequenceVisitor;

impl<'de> Visitor<'de> for SequenceVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a string")
    }

    fn visit_unit<E: de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<bool, E> {
        Ok(value != 0)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<bool, E> {
        Ok(value != 0)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<bool, E> {
        Ok(value != 0.0)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<bool, E> {
        Ok(!value.is_empty())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(true)
    }
}
