//! The model under test: reached once, described, and ready to be asked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use thiserror::Error;
use tokio::time::{Instant, timeout, timeout_at};

use crate::failure::{Failure, FailureKind};
use crate::link::{Answer, Link};
use crate::protocol::{
    JSON_LENGTH_HEADER, MetadataError, ModelMetadata, PreparedRequests, ReplyContract, RequestError, RequestOptions,
};
use crate::target::Target;
use crate::usage::ProcessUsage;

/// A model on a live server, with requests prepared for it. Clones share everything.
#[derive(Debug, Clone)]
pub struct Subject {
    inner: Arc<Inner>,
    process: Option<u32>,
    patience: Duration,
}

#[derive(Debug)]
struct Inner {
    target: Target,
    address: SocketAddr,
    metadata: ModelMetadata,
    requests: PreparedRequests,
    contract: ReplyContract,
}

impl Subject {
    /// How long the client waits for a reply, unless told otherwise.
    pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

    /// Connects to the server, reads the model's metadata and prepares the requests.
    ///
    /// # Errors
    ///
    /// When nobody listens, the server does not know the model, or no request can be made for it.
    pub async fn reach(target: Target, options: &RequestOptions) -> Result<Self, SubjectError> {
        let unreachable = |reason: String| SubjectError::Unreachable { address: target.authority(), reason };
        let address = tokio::net::lookup_host(target.host_and_port())
            .await
            .and_then(|mut addresses| addresses.next().ok_or_else(|| io::Error::other("the name has no address")))
            .map_err(|error| unreachable(error.to_string()))?;
        let answer = timeout(Self::DEFAULT_PATIENCE, fetch_metadata(address, &target))
            .await
            .map_err(|_| unreachable(format!("no answer within {:?}", Self::DEFAULT_PATIENCE)))?;
        let answer = answer.map_err(|failure| match failure.kind {
            FailureKind::Status(_) => SubjectError::Refused { path: target.metadata_path(), reason: failure.message },
            _ => unreachable(failure.message),
        })?;
        let metadata = ModelMetadata::from_json(&answer.body)?;
        let requests = PreparedRequests::new(&target, &metadata, options)?;
        let contract = ReplyContract::new(&metadata);
        Ok(Self {
            inner: Arc::new(Inner { target, address, metadata, requests, contract }),
            process: None,
            patience: Self::DEFAULT_PATIENCE,
        })
    }

    /// Also reports processor time and memory of the server's process, which must be on this machine.
    ///
    /// # Errors
    ///
    /// When there is no such process, or the system does not show it.
    pub fn with_process(mut self, pid: u32) -> Result<Self, SubjectError> {
        ProcessUsage::of(pid).map_err(|source| SubjectError::Process { pid, source })?;
        self.process = Some(pid);
        Ok(self)
    }

    /// Gives up on a reply after `patience` instead of ten seconds, counted from the intended send time.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Where the model is served.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.inner.target
    }

    /// What the model says of itself.
    #[must_use]
    pub fn metadata(&self) -> &ModelMetadata {
        &self.inner.metadata
    }

    /// How long a request waits for its reply.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn process(&self) -> Option<u32> {
        self.process
    }

    /// One request over `link`, which is opened when there is none and dropped when it is of no
    /// more use. Gives up `patience` after `intended`.
    pub(crate) async fn ask(&self, link: &mut Option<Link>, intended: Instant) -> Result<(), Failure> {
        let give_up = intended + self.patience;
        if Instant::now() >= give_up {
            // It waited for a connection all that time; sending it now would only burden the server.
            return Err(self.gave_up("no connection became free"));
        }
        let outcome =
            timeout_at(give_up, self.ask_patiently(link)).await.unwrap_or_else(|_| Err(self.gave_up("no whole reply")));
        if let Err(failure) = &outcome {
            let whole_reply = matches!(failure.kind, FailureKind::Status(_) | FailureKind::MalformedReply);
            if !whole_reply {
                *link = None;
            }
        }
        outcome
    }

    fn gave_up(&self, what: &str) -> Failure {
        Failure::new(FailureKind::Timeout, format!("{what} within {:?}", self.patience))
    }

    async fn ask_patiently(&self, link: &mut Option<Link>) -> Result<(), Failure> {
        let inner = &*self.inner;
        if let Some(open) = link
            && !open.is_usable().await
        {
            *link = None;
        }
        let link = match link {
            Some(open) => open,
            None => link.insert(Link::open(inner.address).await?),
        };
        let answer = link.exchange(inner.requests.next()).await?.into_success()?;
        let json_length = match answer.head.headers.get(JSON_LENGTH_HEADER) {
            None => None,
            Some(value) => Some(
                value
                    .to_str()
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| malformed(format!("header {JSON_LENGTH_HEADER} is {value:?}, not a length")))?,
            ),
        };
        inner.contract.check(json_length, &answer.body).map_err(|breach| malformed(breach.to_string()))
    }
}

/// Why a run cannot begin.
#[derive(Debug, Error)]
pub enum SubjectError {
    /// Nobody answers at the address.
    #[error("cannot reach the server at {address}: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system or the connection said.
        reason: String,
    },
    /// The server answers, but not with the model's metadata.
    #[error("the server does not describe the model at {path}: {reason}")]
    Refused {
        /// Path that was asked.
        path: String,
        /// Status and what the server said.
        reason: String,
    },
    /// The metadata cannot be used.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// No request can be made for the model.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The server's process cannot be watched.
    #[error("process {pid} cannot be watched: {source}")]
    Process {
        /// As given.
        pid: u32,
        /// What the system said.
        source: io::Error,
    },
}

impl SubjectError {
    /// Whether the server may simply not be running.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

async fn fetch_metadata(address: SocketAddr, target: &Target) -> Result<Answer, Failure> {
    let malformed = |error: hyper::http::Error| Failure::new(FailureKind::Connect, error.to_string());
    let mut request = Request::get(target.metadata_path()).body(Full::new(Bytes::new())).map_err(malformed)?;
    *request.headers_mut() = target.headers().map_err(malformed)?;
    let mut link = Link::open(address).await?;
    link.exchange(request).await?.into_success()
}

fn malformed(message: String) -> Failure {
    Failure::new(FailureKind::MalformedReply, message)
}
