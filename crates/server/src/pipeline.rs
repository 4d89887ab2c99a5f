//! The way of a request, from a body to a body.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::timeout_at;
use volley_cache::{Cache, Followed, Key, Lead, Lookup, Rank};
use volley_gpu_runtime::Outputs;
use volley_scheduler::{Failure, Handoff, Outcome, Priority, Request, SubmitError, Ticket};
use volley_telemetry::{EdgeMetrics, Lane};

use crate::catalog::{Catalog, ServedVariant};
use crate::codec::{self, Encoded, Envelope, InferRequest, Pieces};
use crate::engine::{DeviceScheduler, Job, JobResult};
use crate::error::{ApiError, Cause};

/// What every request goes through.
#[derive(Debug)]
pub(crate) struct Pipeline {
    /// What is served.
    pub catalog: Arc<Catalog>,
    /// Where misses are computed.
    pub scheduler: DeviceScheduler,
    /// Where results are kept, if they are.
    pub cache: Option<Cache<ApiError>>,
    /// Where requests that reach no model are counted.
    pub rejections: EdgeMetrics,
}

/// One call, as an edge read it.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// The model named in the path.
    pub model: &'a str,
    /// The version named in the path.
    pub version: Option<&'a str>,
    /// The body.
    pub body: Pieces,
    /// The value of `Inference-Header-Content-Length`.
    pub json_length: Option<usize>,
    /// When the request's head was read: deadlines and latency count from here.
    pub arrival: Instant,
}

/// What a request asks of the scheduler and of a shared flight.
#[derive(Debug, Clone, Copy)]
struct Urgency {
    priority: Priority,
    deadline: Option<Instant>,
}

impl Urgency {
    fn rank(self) -> Rank {
        let urgency = Priority::COUNT - 1 - self.priority.lane();
        Rank { urgency: urgency as u8, deadline: self.deadline }
    }

    /// That of the most urgent and the most patient of those who wait together.
    fn of(rank: Rank) -> Self {
        let lane = (Priority::COUNT - 1).saturating_sub(rank.urgency.into());
        Self { priority: Priority::ALL[lane], deadline: rank.deadline }
    }
}

impl Pipeline {
    /// Answers one inference request. `handoff` belongs to the runtime this runs on.
    ///
    /// # Errors
    /// [`ApiError`] that says what was wrong with the request, or why it was not computed.
    pub(crate) async fn infer(&self, handoff: &Handoff, call: Call<'_>) -> Result<Encoded, ApiError> {
        let (json, binary) = codec::split(call.body, call.json_length).inspect_err(|error| self.rejected(error))?;
        let envelope = Envelope::read(&json, binary).inspect_err(|error| self.rejected(error))?;
        let parameters = envelope.parameters();
        let urgency = Urgency {
            priority: parameters.priority(),
            deadline: parameters.timeout().and_then(|timeout| call.arrival.checked_add(timeout)),
        };
        let use_cache = parameters.cache != Some(false);
        let found = self.catalog.find(call.model, call.version, parameters.variant.as_deref());
        let variant = found.inspect_err(|error| self.rejected(error))?;
        let lane = lane(urgency.priority);
        let unanswered = Unanswered(Some((variant, lane)));
        let result = self.answer(handoff, variant, envelope, urgency, use_cache).await;
        unanswered.ended();
        match &result {
            Ok(_) => variant.metrics.request_completed(lane, call.arrival.elapsed()),
            Err(error) => variant.metrics.request_failed(lane, error.failure()),
        }
        result
    }

    fn rejected(&self, error: &ApiError) {
        self.rejections.request_rejected(error.rejection());
    }

    async fn answer(
        &self,
        handoff: &Handoff,
        variant: &ServedVariant,
        envelope: Envelope<'_>,
        urgency: Urgency,
        use_cache: bool,
    ) -> Result<Encoded, ApiError> {
        let mut request = envelope.bind(variant.interface())?;
        let outputs = match &self.cache {
            Some(cache) if use_cache => self.cached(cache, handoff, variant, &mut request, urgency).await?,
            _ => self.compute(handoff, variant, &mut request, urgency).await?,
        };
        Ok(codec::encode(&variant.model_name, &variant.version, &request, variant.outputs(), &outputs))
    }

    /// Looks for the result in the cache, joins whoever computes it already, or computes it for all who ask.
    async fn cached(
        &self,
        cache: &Cache<ApiError>,
        handoff: &Handoff,
        variant: &ServedVariant,
        request: &mut InferRequest,
        urgency: Urgency,
    ) -> Result<Outputs, ApiError> {
        let key = key(variant, request);
        let rank = urgency.rank();
        let lead = match cache.lookup(key, rank) {
            Lookup::Hit(bytes) => return restored(bytes, variant, request),
            Lookup::Lead(lead) => lead,
            Lookup::Follow(follow) => match in_time(urgency.deadline, follow).await? {
                Followed::Value(bytes) => return restored(bytes, variant, request),
                Followed::Failed(error) => return Err(error),
                Followed::Lead(lead) => lead,
            },
        };
        self.lead(lead, handoff, variant, request, urgency).await
    }

    /// Computes for all who wait. Where someone more urgent or more patient joins, the request is queued anew for them.
    ///
    /// A failure to compute is everybody's. Any other is the leader's own (its deadline, a full lane): dropping the lead
    /// hands it to the next who waits.
    async fn lead(
        &self,
        lead: Lead<ApiError>,
        handoff: &Handoff,
        variant: &ServedVariant,
        request: &mut InferRequest,
        urgency: Urgency,
    ) -> Result<Outputs, ApiError> {
        let job = Job { inputs: std::mem::take(&mut request.inputs), rows: request.rows };
        let computed = async {
            let mut rank = lead.rank();
            loop {
                let mut ticket = self.submit(handoff, variant, job.clone(), Urgency::of(rank))?;
                tokio::select! {
                    biased;
                    outcome = &mut ticket => return concluded(variant, urgency, outcome),
                    raised = lead.raised(rank) => rank = raised,
                }
                // Too late to withdraw means that it is being computed, which is as good as it gets.
                if let Err(ticket) = ticket.withdraw() {
                    return concluded(variant, urgency, ticket.await);
                }
            }
        };
        match in_time(urgency.deadline, computed).await? {
            Ok(outputs) => {
                lead.complete(outputs.to_joined());
                Ok(outputs)
            }
            Err(error) => {
                if error.cause == Cause::ComputeFailed {
                    lead.fail_all(error.clone());
                }
                Err(error)
            }
        }
    }

    /// Queues the request, and waits for its batch.
    async fn compute(
        &self,
        handoff: &Handoff,
        variant: &ServedVariant,
        request: &mut InferRequest,
        urgency: Urgency,
    ) -> Result<Outputs, ApiError> {
        let job = Job { inputs: std::mem::take(&mut request.inputs), rows: request.rows };
        let ticket = self.submit(handoff, variant, job, urgency)?;
        concluded(variant, urgency, in_time(urgency.deadline, ticket).await?)
    }

    fn submit(
        &self,
        handoff: &Handoff,
        variant: &ServedVariant,
        job: Job,
        urgency: Urgency,
    ) -> Result<Ticket<JobResult>, ApiError> {
        let rows = job.rows.try_into().expect("a request that was checked has rows");
        let mut submission = Request::new(variant.group, job).priority(urgency.priority).rows(rows).handoff(handoff);
        if let Some(deadline) = urgency.deadline {
            submission = submission.deadline(deadline);
        }
        self.scheduler.submit(submission).map_err(|refused| refusal(&refused))
    }
}

/// What a request's end means to its caller.
fn concluded(variant: &ServedVariant, urgency: Urgency, outcome: Outcome<JobResult>) -> Result<Outputs, ApiError> {
    if outcome.timings.batch.is_some() {
        variant.metrics.request_dequeued(lane(urgency.priority), outcome.timings.queue_time());
    }
    match outcome.result {
        Ok(Ok(outputs)) => Ok(outputs),
        Ok(Err(error)) => Err(ApiError::new(Cause::ComputeFailed, error.to_string())),
        Err(Failure::DeadlineExceeded) => Err(ApiError::deadline()),
        Err(Failure::ShutDown) => Err(ApiError::shutting_down()),
        Err(failure) => Err(ApiError::new(Cause::ComputeFailed, format!("the batch was not completed: {failure}"))),
    }
}

/// A request on its way. Dropped before its end, because its caller hung up, it is counted as cancelled.
struct Unanswered<'a>(Option<(&'a ServedVariant, Lane)>);

impl Unanswered<'_> {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some((variant, lane)) = self.0 {
            variant.metrics.request_failed(lane, volley_telemetry::Failure::Cancelled);
        }
    }
}

/// What a result depends on. The identity stands for the file, and so for the names, types and row shapes of its tensors.
fn key(variant: &ServedVariant, request: &InferRequest) -> Key {
    let mut hasher = variant.identity.clone();
    hasher.field(&request.rows.to_le_bytes());
    for values in &request.inputs {
        hasher.field_in_parts(values.iter());
    }
    hasher.finish()
}

fn restored(bytes: bytes::Bytes, variant: &ServedVariant, request: &InferRequest) -> Result<Outputs, ApiError> {
    Outputs::from_joined(bytes, variant.outputs(), request.rows)
        .ok_or_else(|| ApiError::new(Cause::Internal, "a cached result has the wrong size"))
}

/// Waits no longer than the deadline. What is given up is dropped, which withdraws it.
async fn in_time<F: Future>(deadline: Option<Instant>, future: F) -> Result<F::Output, ApiError> {
    match deadline {
        None => Ok(future.await),
        Some(deadline) => timeout_at(deadline.into(), future).await.map_err(|_| ApiError::deadline()),
    }
}

/// The label under which a priority's requests are counted.
pub(crate) fn lane(priority: Priority) -> Lane {
    Lane::ALL[priority.lane()]
}

fn refusal<T>(refused: &SubmitError<T>) -> ApiError {
    match refused {
        SubmitError::Full(_) => ApiError::new(Cause::QueueFull, refused.to_string()),
        SubmitError::Closed(_) => ApiError::shutting_down(),
        SubmitError::DeadlinePassed(_) => ApiError::deadline(),
        SubmitError::DeadlineUnmeetable(_, wait) => ApiError::unmeetable(*wait),
        other => ApiError::new(Cause::Internal, other.to_string()),
    }
}
