//! The way of a request, from what it asks to what it is answered.

mod flight;
mod key;
mod warm;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;
use volley_cache::{Followed, Key, Lead, Lookup, Rank};
use volley_gpu_runtime::Outputs;
use volley_scheduler::{Failure, Handoff, Outcome, Priority, Request, SubmitError, TenantId, Ticket};
use volley_telemetry::{EdgeMetrics, Lane};

use crate::catalog::{Catalog, Kept, Selection, ServedVariant};
use crate::codec::{Answerer, InferRequest, Participation, Unbound};
use crate::engine::{Computed, DeviceScheduler, Job, JobResult};
use crate::error::{ApiError, Cause};
use crate::http::Received;
use crate::results::{First, Results, Unkept, first};

use flight::Flight;
use key::key;
pub(crate) use warm::{Warmth, warm};

/// What every request goes through.
#[derive(Debug)]
pub(crate) struct Pipeline {
    /// What is served.
    pub catalog: Arc<Catalog>,
    /// Where misses are computed.
    pub scheduler: DeviceScheduler,
    /// Where results are kept, if they are.
    pub results: Option<Results>,
    /// Where requests that reach no model are counted.
    pub rejections: EdgeMetrics,
}

/// One call, as an edge read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// The model it names.
    pub model: &'a str,
    /// The version it names, if it does.
    pub version: Option<&'a str>,
    /// Who asks, as the scheduler knows them, if they have a name.
    pub tenant: Option<TenantId>,
    /// When the request came: deadlines and latency count from there.
    pub received: Received,
    /// How long its caller waits, where the protocol says so beside the request's own parameter.
    pub patience: Option<Duration>,
}

/// What a call is answered; the edge writes it in the form in which it was asked.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The request.
    pub request: InferRequest,
    /// All the model's outputs for it.
    pub outputs: Outputs,
    variant: Arc<ServedVariant>,
    members: usize,
}

impl Answer {
    /// Who answers.
    pub(crate) fn answerer(&self) -> Answerer<'_> {
        let variant = &self.variant;
        Answerer {
            model: &variant.model_name,
            version: &variant.version,
            outputs: variant.outputs(),
            participation: (variant.size() > 1)
                .then_some(Participation { ensemble_members: self.members, ensemble_size: variant.size() }),
        }
    }
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
    pub(crate) async fn infer(
        &self,
        handoff: &Handoff,
        call: Call<'_>,
        unbound: impl Unbound,
    ) -> Result<Answer, ApiError> {
        let parameters = unbound.parameters();
        let patience = parameters.timeout().into_iter().chain(call.patience).min();
        let urgency = Urgency {
            priority: parameters.priority(),
            deadline: patience.and_then(|patience| call.received.deadline(patience)),
        };
        let use_cache = parameters.cache != Some(false);
        let selection = Selection {
            version: call.version,
            variant: parameters.variant.as_deref(),
            ensemble: parameters.ensemble(),
        };
        let variant = self.catalog.find(call.model, selection).inspect_err(|error| self.rejected(error))?;
        let lane = lane(urgency.priority);
        let unanswered = Unanswered(Some((&variant, lane)));
        let result = self.answer(handoff, call.tenant, &variant, unbound, urgency, use_cache).await;
        let result = result.map_err(|error| error.after(call.received.lag));
        unanswered.ended();
        let took = call.received.at.elapsed();
        match &result {
            Ok(_) => {
                variant.metrics.request_completed(lane, took);
                variant.statistics.success.add(took);
            }
            Err(error) => {
                variant.metrics.request_failed(lane, error.failure());
                variant.statistics.fail.add(took);
            }
        }
        let (request, Computed { outputs, members }) = result?;
        Ok(Answer { request, outputs, variant, members })
    }

    /// Counts a request that reached no model.
    pub(crate) fn rejected(&self, error: &ApiError) {
        self.rejections.request_rejected(error.rejection());
    }

    async fn answer(
        &self,
        handoff: &Handoff,
        tenant: Option<TenantId>,
        variant: &Arc<ServedVariant>,
        unbound: impl Unbound,
        urgency: Urgency,
        use_cache: bool,
    ) -> Result<(InferRequest, Computed), ApiError> {
        let cache = self.results.as_ref().zip(variant.kept.as_ref());
        let cache = cache.filter(|(_, kept)| use_cache && kept.admission().admits());
        if cache.is_none() {
            self.turn_away_if_hopeless(tenant, variant, urgency)?;
        }
        let interface = variant.interface(unbound.parameters().wants_uncertainty());
        let request = unbound.bind(interface)?;
        let errand = Errand { variant, request: &request, urgency, tenant, handoff, is_asked: true };
        let computed = match cache {
            Some((results, kept)) => self.cached(results, kept, errand).await?,
            None => in_time(urgency.deadline, self.compute(errand)).await??,
        };
        Ok((request, computed))
    }

    /// Refuses a request that would be too late before it is looked at: under overload, most are.
    fn turn_away_if_hopeless(
        &self,
        tenant: Option<TenantId>,
        variant: &ServedVariant,
        urgency: Urgency,
    ) -> Result<(), ApiError> {
        let Some(deadline) = urgency.deadline else { return Ok(()) };
        let wait = self.scheduler.unmeetable_wait(variant.groups.together, tenant, urgency.priority, deadline);
        wait.map_or(Ok(()), |wait| Err(ApiError::unmeetable(wait)))
    }

    /// Looks for the result in memory, joins whoever computes it already, or finds or computes it for all who ask.
    async fn cached(&self, results: &Results, kept: &Kept, errand: Errand<'_>) -> Result<Computed, ApiError> {
        let began = Instant::now();
        let key = key(&errand.variant.identity, errand.request);
        let looked_up = results.lookup(key, &kept.domain, errand.urgency.rank());
        let look_up = began.elapsed();
        let statistics = &errand.variant.statistics;
        let spared = || {
            kept.admission().hit(look_up);
            statistics.cache_hit.add(began.elapsed());
            // Triton's count of those who waited includes those who waited for nothing; its callers rely on that.
            statistics.queue.add(Duration::ZERO);
        };
        let found = |bytes| {
            spared();
            restored(bytes, errand)
        };
        let lead = match looked_up {
            Lookup::Hit(bytes) => return found(bytes),
            Lookup::Lead(lead) => lead,
            Lookup::Follow(follow) => match Box::pin(in_time(errand.urgency.deadline, follow)).await? {
                Followed::Value(bytes) => return found(bytes),
                Followed::Failed(Unkept::Partial(computed)) => {
                    spared();
                    return Ok(computed);
                }
                Followed::Failed(Unkept::Failed(error)) => return Err(error),
                Followed::Lead(lead) => lead,
            },
        };
        statistics.cache_miss.add(began.elapsed());
        let came = Box::pin(self.conclude(results, kept, key, lead, errand)).await;
        match came {
            Ok(First::Found(found)) => {
                kept.admission().hit(look_up);
                restored(found.value, errand)
            }
            Ok(First::Computed(computed)) => {
                kept.admission().missed(look_up);
                Ok(computed)
            }
            Err(error) => {
                kept.admission().missed(look_up);
                Err(error)
            }
        }
    }

    /// Finds the result elsewhere or computes it, for all who ask, and keeps it.
    async fn conclude(
        &self,
        results: &Results,
        kept: &Kept,
        key: Key,
        lead: Lead<Unkept>,
        errand: Errand<'_>,
    ) -> Result<First<Computed>, ApiError> {
        let mut flight = Flight::new(results, key, errand.variant.size(), lead);
        // The look-up elsewhere runs beside the queue.
        let mut fetch = results.fetch(key, &kept.domain);
        loop {
            let came = in_time(errand.urgency.deadline, first(fetch.take(), self.lead(&mut flight, errand))).await?;
            match came {
                Ok(First::Computed(computed)) => {
                    flight.land(&computed);
                    return Ok(First::Computed(computed));
                }
                Ok(First::Found(found)) => {
                    flight.ticket = None;
                    let lead = flight.lead.take().expect("the flight has not landed");
                    match lead.complete_found(found.value.clone(), found.born) {
                        Ok(()) => return Ok(First::Found(found)),
                        // It was invalidated on its way here.
                        Err(still) => flight.lead = Some(still),
                    }
                }
                Err(error) => {
                    if let Some(lead) = flight.lead.take_if(|_| error.cause == Cause::ComputeFailed) {
                        lead.fail_all(Unkept::Failed(error.clone()));
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Computes for all who wait. Where someone more urgent or more patient joins, the request is queued anew for them.
    ///
    /// A failure to compute is everybody's. Any other is the leader's own (its deadline, a full lane): dropping the lead
    /// hands it to the next who waits.
    async fn lead(&self, flight: &mut Flight<'_>, errand: Errand<'_>) -> Result<Computed, ApiError> {
        let Flight { lead, ticket, .. } = flight;
        let lead = lead.as_ref().expect("the flight has not landed");
        let mut rank = lead.rank();
        let mut attempt = Attempt::First;
        let submit = |rank, attempt| self.submit(Errand { urgency: Urgency::of(rank), ..errand }, attempt);
        loop {
            let under_way = match ticket {
                Some(under_way) => under_way,
                None => ticket.insert(submit(rank, attempt)?),
            };
            let outcome = tokio::select! {
                biased;
                outcome = under_way => outcome,
                raised = lead.raised(rank) => {
                    rank = raised;
                    // Where there is no place for it as more urgent, it keeps the one it has. Too late to withdraw it means
                    // that it is being computed, which is as good as it gets.
                    if let Ok(sooner) = submit(rank, attempt) {
                        *ticket = match ticket.take().map(Ticket::withdraw) {
                            Some(Err(computed)) => Some(computed),
                            _ => Some(sooner),
                        };
                    }
                    continue;
                }
            };
            *ticket = None;
            if let Some(result) = concluded(errand, attempt, outcome) {
                return result;
            }
            attempt = Attempt::Alone;
        }
    }

    /// Queues the request, and waits for its batch; if that fails, for one of its own.
    async fn compute(&self, errand: Errand<'_>) -> Result<Computed, ApiError> {
        let outcome = self.submit(errand, Attempt::First)?.await;
        if let Some(result) = concluded(errand, Attempt::First, outcome) {
            return result;
        }
        let outcome = self.submit(errand, Attempt::Alone)?.await;
        concluded(errand, Attempt::Alone, outcome).expect("there is no third attempt")
    }

    fn submit(&self, errand: Errand<'_>, attempt: Attempt) -> Result<Ticket<JobResult>, ApiError> {
        let Errand { variant, request, urgency, tenant, handoff, is_asked: _ } = errand;
        if variant.is_out() {
            let ServedVariant { model_name, version, variant, .. } = &**variant;
            let message = format!(
                "model `{model_name}`, version {version}, variant `{variant}` keeps failing and is taken out; it is tried every second"
            );
            return Err(ApiError::new(Cause::Unavailable, message));
        }
        let group = match attempt {
            Attempt::First => variant.groups.together,
            Attempt::Alone => variant.groups.alone,
        };
        let job = Job { variant: Arc::clone(variant), inputs: Arc::clone(&request.inputs), rows: request.rows };
        let rows = job.rows.try_into().expect("a request that was checked has rows");
        let mut submission = Request::new(group, job).priority(urgency.priority).rows(rows).handoff(handoff);
        if let Some(tenant) = tenant {
            submission = submission.tenant(tenant);
        }
        if let Some(deadline) = urgency.deadline {
            submission = submission.deadline(deadline);
        }
        self.scheduler.submit(submission).map_err(|refused| refusal(&refused))
    }
}

/// A request that is to be computed.
#[derive(Debug, Clone, Copy)]
struct Errand<'a> {
    variant: &'a Arc<ServedVariant>,
    request: &'a InferRequest,
    urgency: Urgency,
    tenant: Option<TenantId>,
    handoff: &'a Handoff,
    /// Whether a caller asked: only then it is counted as a request.
    is_asked: bool,
}

/// How often a request was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    /// Its batch failed. It may be what made it fail, so it goes alone.
    Alone,
}

/// What a request's end means to its caller; nothing if it is to be tried again, because what failed was its batch.
fn concluded(errand: Errand<'_>, attempt: Attempt, outcome: Outcome<JobResult>) -> Option<Result<Computed, ApiError>> {
    let variant = errand.variant;
    if errand.is_asked && outcome.timings.batch.is_some() {
        variant.metrics.request_dequeued(lane(errand.urgency.priority), outcome.timings.queue_time());
        variant.statistics.queue.add(outcome.timings.queue_time());
    }
    let message = match outcome.result {
        Ok(Ok(computed)) => {
            if let (Some(kept), Some(batch)) = (&variant.kept, outcome.timings.batch) {
                let share = errand.request.rows as f64 / batch.rows.max(1) as f64;
                kept.admission().computed(outcome.timings.execute_time().mul_f64(share));
            }
            return Some(Ok(computed));
        }
        Ok(Err(error)) => error.to_string(),
        Err(Failure::DeadlineExceeded) => {
            let early = errand.urgency.deadline.is_some_and(|deadline| outcome.timings.completed < deadline);
            return Some(Err(if early { ApiError::hopeless() } else { ApiError::deadline() }));
        }
        Err(Failure::ShutDown) => return Some(Err(ApiError::shutting_down())),
        Err(failure) => format!("the batch was not completed: {failure}"),
    };
    if attempt == Attempt::First {
        variant.recovery.request_retried();
        return None;
    }
    Some(Err(ApiError::new(Cause::ComputeFailed, message)))
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

fn restored(bytes: bytes::Bytes, errand: Errand<'_>) -> Result<Computed, ApiError> {
    let outputs = Outputs::from_joined(bytes, errand.variant.outputs(), errand.request.rows)
        .ok_or_else(|| ApiError::new(Cause::Internal, "a cached result has the wrong size"))?;
    // Only what all had a part in is kept.
    Ok(Computed { outputs, members: errand.variant.size() })
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
        SubmitError::QuotaExceeded(_) => ApiError::new(Cause::QuotaExceeded, refused.to_string()),
        SubmitError::Closed(_) => ApiError::shutting_down(),
        SubmitError::DeadlinePassed(_) => ApiError::passed(),
        SubmitError::DeadlineUnmeetable(_, wait) => ApiError::unmeetable(*wait),
        other => ApiError::new(Cause::Internal, other.to_string()),
    }
}
