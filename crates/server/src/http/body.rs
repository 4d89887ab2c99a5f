//! A request's body, which has to arrive in time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use crate::error::{ApiError, Cause};

/// A body that ends with status 408 once it has been waited for longer than it may take to arrive.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Incoming,
    limit: Duration,
    /// Running since it was first waited for: bodies that are there cost no timer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, limit: Duration) -> Self {
        Self { incoming, limit, timer: None }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ApiError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ApiError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) {
            let ended_early = |error| ApiError::invalid("body", format!("ended early: {error}"));
            return Poll::Ready(frame.map(|frame| frame.map_err(ended_early)));
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        timer.as_mut().poll(context).map(|()| {
            let message = format!("body: not there after {limit:?}; send it faster, or raise limits.body_time");
            Some(Err(ApiError::new(Cause::TooSlow, message)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
