//! Refusals and failures as gRPC writes them.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::error::{ApiError, Cause};

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut status = Self::new(code(&error), error.message.as_str());
        if let Some(after) = error.retry_after() {
            status.metadata_mut().insert("retry-after", MetadataValue::from(after.as_secs().max(1)));
        }
        status
    }
}

/// tonic says `OUT_OF_RANGE` of a message that is too large, where gRPC has `RESOURCE_EXHAUSTED`.
pub(super) fn as_grpc_has_it(status: Status) -> Status {
    if status.code() != Code::OutOfRange {
        return status;
    }
    Status::resource_exhausted(format!("{}; send fewer rows, or raise http.max_body_bytes", status.message()))
}

/// The code that says to a gRPC caller what the status says to one of HTTP.
fn code(error: &ApiError) -> Code {
    match (error.cause, error.status().as_u16()) {
        (Cause::QueueFull | Cause::Overloaded | Cause::DeadlineUnmeetable(_), 503) | (_, 413 | 429) => {
            Code::ResourceExhausted
        }
        (_, 401) => Code::Unauthenticated,
        (_, 403) => Code::PermissionDenied,
        (_, 404) => Code::NotFound,
        (_, 405 | 415) => Code::Unimplemented,
        (_, 503) => Code::Unavailable,
        (_, 504) => Code::DeadlineExceeded,
        (_, 400..500) => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_cause_has_the_code_that_a_caller_acts_on() {
        let cases = [
            (ApiError::invalid("inputs", "missing"), Code::InvalidArgument),
            (ApiError::new(Cause::NotFound, ""), Code::NotFound),
            (ApiError::new(Cause::TooLarge, ""), Code::ResourceExhausted),
            (ApiError::new(Cause::QueueFull, ""), Code::ResourceExhausted),
            (ApiError::new(Cause::Overloaded, ""), Code::ResourceExhausted),
            (ApiError::new(Cause::Unavailable, ""), Code::Unavailable),
            (ApiError::shutting_down(), Code::Unavailable),
            (ApiError::deadline(), Code::DeadlineExceeded),
            (ApiError::unmeetable(Duration::ZERO), Code::DeadlineExceeded),
            (ApiError::unmeetable(Duration::from_secs(7)), Code::ResourceExhausted),
            (ApiError::new(Cause::MethodNotAllowed, ""), Code::Unimplemented),
            (ApiError::new(Cause::ComputeFailed, ""), Code::Internal),
        ];
        for (error, code) in cases {
            assert_eq!(Status::from(error.clone()).code(), code, "{error:?}");
        }
        let late = Status::from(ApiError::unmeetable(Duration::from_secs(7)));
        assert_eq!(late.metadata().get("retry-after").and_then(|value| value.to_str().ok()), Some("7"));
    }
}
