//! A request's body, which has to arrive in time and to find room.

use std::error::Error;
use std::fmt;
use std::iter::successors;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::bodies::Held;
use crate::error::{ApiError, Cause};

/// A body that ends with status 408 once it has been waited for longer than it may take to arrive, and with 503 where there
/// is no room for it.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Incoming,
    limit: Option<Duration>,
    /// Running since it was first waited for: bodies that are there cost no timer.
    timer: Option<Pin<Box<Sleep>>>,
    held: Option<Arc<Held>>,
}

impl RequestBody {
    /// What arrives is added to what is `held`; it may take as long as `limit`, or as it likes.
    pub(super) fn new(incoming: Incoming, limit: Option<Duration>, held: Option<Arc<Held>>) -> Self {
        Self { incoming, limit, timer: None, held }
    }

    /// Reads on for `bytes` more at most, and throws them away: a caller that is still sending when the connection closes
    /// would never see why.
    pub(super) async fn discard(mut self, bytes: usize) {
        if let Some(held) = self.held.take() {
            held.let_go();
        }
        let mut left = bytes;
        while let Some(Ok(frame)) = self.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(fewer) => left = fewer,
                None => return,
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ApiError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ApiError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| {
                let frame = frame.map_err(ended_early)?;
                if let (Some(held), Some(data)) = (&self.held, frame.data_ref()) {
                    held.take(data.len(), usize::try_from(self.incoming.size_hint().lower()).unwrap_or(usize::MAX))?;
                }
                Ok(frame)
            }));
        }
        let Some(limit) = self.limit else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        timer.as_mut().poll(context).map(|()| Some(Err(too_slow(limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// That a body is not there after `limit`.
pub(super) fn too_slow(limit: Duration) -> ApiError {
    let message = format!("body: not there after {limit:?}; send it faster, or raise limits.body_time");
    ApiError::new(Cause::TooSlow, message)
}

/// That a body could not be read to its end.
pub(super) fn ended_early(error: impl fmt::Display) -> ApiError {
    ApiError::invalid("body", format_args!("ended early: {error}"))
}

/// A whole body, for routes that take little.
pub(super) struct Whole(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| {
            let mut causes = successors(Some(&rejection as &(dyn Error + 'static)), |&error| error.source());
            let said = causes.find_map(|cause| cause.downcast_ref::<ApiError>()).cloned();
            said.unwrap_or_else(|| match rejection.into_response().status() {
                StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(Cause::TooLarge, "body: more than 2 MB"),
                _ => ApiError::invalid("body", "could not be read"),
            })
        })
    }
}
