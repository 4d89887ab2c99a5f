//! What a caller is told when a request cannot be answered: a status, a sentence that names what was wrong, and when to
//! come back.

use std::time::Duration;

use hyper::StatusCode;

/// A refusal or failure, in the terms of HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The status of the response.
    pub status: StatusCode,
    /// What was wrong, where, and what would be right.
    pub message: String,
    /// When to try again, for overload.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// The request itself is at fault; `field` says where, in the terms of the request.
    pub fn invalid(field: impl std::fmt::Display, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{field}: {message}"))
    }

    /// What the request names does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// Any other failure.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }

    /// The server has too much to do, or is leaving.
    pub fn overloaded(message: impl Into<String>) -> Self {
        let retry_after = Some(Duration::from_secs(1));
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: message.into(), retry_after }
    }

    /// The request's deadline passed, or could not have been met.
    pub fn deadline() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "parameters.timeout: the deadline passed before the result was there")
    }
}
