//! What a caller is told when a request cannot be answered: a cause, from which the status follows, and a sentence that
//! names what was wrong.

use std::fmt;
use std::time::Duration;

use hyper::StatusCode;
use volley_telemetry::{Failure, Rejection};

/// Longest message, in bytes: messages quote what the caller sent, which may be as large as a body, and each goes into
/// a response and a log line.
const LONGEST_MESSAGE: usize = 1000;

/// A refusal or failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// What kind of thing went wrong.
    pub cause: Cause,
    /// What was wrong, where, and what would be right.
    pub message: String,
}

/// The kinds of things that go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The request does not fit the protocol or the model.
    Invalid,
    /// The body is in an encoding that is not offered.
    UnsupportedEncoding,
    /// The body is larger than allowed.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// Nobody knows who asks.
    Unauthenticated,
    /// Who asks may not.
    Forbidden,
    /// Who asks does so too often; it may again after this long.
    TooOften(Duration),
    /// As many of the caller's requests wait as may.
    QuotaExceeded,
    /// What is asked for does not go with what is there.
    Conflict,
    /// What the request names does not exist.
    NotFound,
    /// The route does not answer this method.
    MethodNotAllowed,
    /// The request's lane is full.
    QueueFull,
    /// As much of other requests is there as may be.
    Overloaded,
    /// The server is leaving.
    ShuttingDown,
    /// The deadline passed.
    Deadline,
    /// The deadline could not have been met: the queue ahead is this long.
    DeadlineUnmeetable(Duration),
    /// The batch failed.
    ComputeFailed,
    /// What would answer is taken out, because its batches keep failing.
    Unavailable,
    /// The server is at fault in some other way.
    Internal,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// An error with a message. Of one that is too long the middle is left out: its beginning names the field, its end
    /// says what was expected.
    pub(crate) fn new(cause: Cause, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > LONGEST_MESSAGE {
            let head = message.floor_char_boundary(LONGEST_MESSAGE / 2);
            let tail = message.ceil_char_boundary(message.len() - LONGEST_MESSAGE / 2);
            message = format!("{} [...] {}", &message[..head], &message[tail..]);
        }
        Self { cause, message }
    }

    /// The request itself is at fault; `field` says where, in the terms of the request.
    pub(crate) fn invalid(field: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self::new(Cause::Invalid, format!("{field}: {message}"))
    }

    /// The request's deadline passed.
    pub(crate) fn deadline() -> Self {
        Self::new(
            Cause::Deadline,
            "parameters.timeout: the deadline (or the call's own) passed before the result was there",
        )
    }

    /// The request's deadline has become too close while it waited.
    pub(crate) fn hopeless() -> Self {
        Self::new(
            Cause::Deadline,
            "parameters.timeout: the deadline can no longer be met, after the wait that there was",
        )
    }

    /// The request's deadline cannot be met: it would first have to wait this long.
    pub(crate) fn unmeetable(wait: Duration) -> Self {
        let message = if wait.is_zero() {
            "parameters.timeout: the deadline cannot be met; to compute takes longer".to_owned()
        } else {
            format!("parameters.timeout: the deadline cannot be met; requests wait {wait:.1?} before they start")
        };
        Self::new(Cause::DeadlineUnmeetable(wait), message)
    }

    /// The request's deadline had passed before it could be queued.
    pub(crate) fn passed() -> Self {
        let message = "parameters.timeout: the deadline (or the call's own) had passed before the request could wait";
        Self::new(Cause::DeadlineUnmeetable(Duration::ZERO), message)
    }

    /// What is said where the request had waited for `lag` before it was looked at, and its answer would wait as long
    /// again. One that was given up later is told so all the same.
    pub(crate) fn after(self, lag: Duration) -> Self {
        match self.cause {
            Cause::DeadlineUnmeetable(wait) if !lag.is_zero() => Self::unmeetable(wait + 2 * lag),
            _ => self,
        }
    }

    /// The server is leaving.
    pub(crate) fn shutting_down() -> Self {
        Self::new(Cause::ShuttingDown, "the server is shutting down")
    }

    /// The status of the response.
    pub(crate) fn status(&self) -> StatusCode {
        match self.cause {
            Cause::Invalid => StatusCode::BAD_REQUEST,
            Cause::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Cause::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Cause::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Cause::Unauthenticated => StatusCode::UNAUTHORIZED,
            Cause::Forbidden => StatusCode::FORBIDDEN,
            Cause::TooOften(_) | Cause::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
            Cause::Conflict => StatusCode::CONFLICT,
            Cause::NotFound => StatusCode::NOT_FOUND,
            Cause::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            // With nothing before it, it would not be met at any other time either.
            Cause::Deadline | Cause::DeadlineUnmeetable(Duration::ZERO) => StatusCode::GATEWAY_TIMEOUT,
            Cause::QueueFull
            | Cause::Overloaded
            | Cause::ShuttingDown
            | Cause::Unavailable
            | Cause::DeadlineUnmeetable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Cause::ComputeFailed | Cause::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// How long the caller should stay away, for overload.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self.cause {
            Cause::QueueFull
            | Cause::Overloaded
            | Cause::QuotaExceeded
            | Cause::ShuttingDown
            | Cause::Unavailable
            | Cause::Deadline => Some(Duration::from_secs(1)),
            Cause::DeadlineUnmeetable(wait) | Cause::TooOften(wait) => Some(wait),
            _ => None,
        }
    }

    /// How a request that reached its model is counted.
    pub(crate) fn failure(&self) -> Failure {
        match self.cause {
            Cause::QueueFull | Cause::Overloaded | Cause::QuotaExceeded => Failure::QueueFull,
            Cause::ShuttingDown => Failure::ShuttingDown,
            Cause::Deadline => Failure::DeadlineExceeded,
            Cause::DeadlineUnmeetable(_) => Failure::DeadlineUnmeetable,
            Cause::ComputeFailed => Failure::ComputeFailed,
            Cause::Unavailable => Failure::Unavailable,
            Cause::Internal => Failure::Internal,
            Cause::Invalid
            | Cause::UnsupportedEncoding
            | Cause::TooLarge
            | Cause::TooSlow
            | Cause::Unauthenticated
            | Cause::Forbidden
            | Cause::TooOften(_)
            | Cause::Conflict
            | Cause::NotFound
            | Cause::MethodNotAllowed => Failure::InvalidInput,
        }
    }

    /// How a request that reached no model is counted.
    pub(crate) fn rejection(&self) -> Rejection {
        match self.cause {
            Cause::TooLarge => Rejection::TooLarge,
            Cause::NotFound => Rejection::UnknownModel,
            Cause::Unauthenticated | Cause::Forbidden => Rejection::Unauthorized,
            Cause::Overloaded | Cause::Unavailable | Cause::TooOften(_) => Rejection::Overloaded,
            _ => Rejection::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_refused_for_want_of_time_or_room_is_told_when_to_try_again() {
        let too_short = ApiError::unmeetable(Duration::ZERO);
        let late = [ApiError::deadline(), ApiError::hopeless(), too_short];
        assert!(late.iter().all(|error| error.status() == 504 && error.retry_after().is_some()));
        let full = [
            ApiError::new(Cause::QueueFull, ""),
            ApiError::new(Cause::Overloaded, ""),
            ApiError::new(Cause::Unavailable, ""),
            ApiError::unmeetable(Duration::from_millis(3)),
            // It would have had the time, had it been read at once.
            ApiError::unmeetable(Duration::ZERO).after(Duration::from_millis(3)),
            ApiError::passed().after(Duration::from_millis(3)),
        ];
        assert!(full.iter().all(|error| error.status() == 503 && error.retry_after().is_some()));
        let in_vain = [
            ApiError::unmeetable(Duration::ZERO).after(Duration::ZERO),
            ApiError::passed().after(Duration::ZERO),
            ApiError::deadline().after(Duration::from_millis(3)),
            ApiError::hopeless().after(Duration::from_millis(3)),
        ];
        assert!(in_vain.iter().all(|error| error.status() == 504));
    }

    #[test]
    fn a_long_message_keeps_its_field_and_what_was_expected() {
        let message = format!("`{}`; expected FP32", "\u{e9}".repeat(1 << 20));
        let error = ApiError::invalid("inputs[0].datatype", message);
        assert!(error.message.len() <= LONGEST_MESSAGE + " [...] ".len(), "{} bytes", error.message.len());
        assert!(error.message.starts_with("inputs[0].datatype: `\u{e9}"), "{}", error.message);
        assert!(error.message.ends_with("\u{e9}`; expected FP32"), "{}", error.message);
    }
}
