//! Requests that nobody sent: inputs whose results the cache is to begin with.

use std::sync::Arc;

use volley_cache::Lookup;
use volley_gpu_runtime::TensorSpec;
use volley_scheduler::{Handoff, Priority};

use super::key::key;
use super::{Errand, Pipeline, Urgency};
use crate::catalog::ServedVariant;
use crate::codec::Unbound;
use crate::error::ApiError;

/// What became of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Warmth {
    /// Its result was computed or found elsewhere, and is kept.
    Kept,
    /// It was there, or somebody computes it already.
    Known,
    /// The cache keeps nothing of this variant, or nothing so large.
    Unkept,
    /// The cache has no room for it but what others would lose.
    Full,
}

/// Takes the way of a request for `variant`, at low priority, so that a caller who asks the same finds the result. It
/// counts as nobody's request, and whether look-ups pay is not judged by it.
///
/// # Errors
/// As for [`Pipeline::infer`].
pub(crate) async fn warm(
    pipeline: &Pipeline,
    handoff: &Handoff,
    variant: &Arc<ServedVariant>,
    unbound: impl Unbound,
) -> Result<Warmth, ApiError> {
    let (Some(results), Some(kept)) = (&pipeline.results, &variant.kept) else { return Ok(Warmth::Unkept) };
    let request = unbound.bind(variant.interface(false))?;
    let row_bytes: usize = variant.outputs().iter().map(TensorSpec::row_bytes).sum();
    if !results.keeps(row_bytes * request.rows) {
        return Ok(Warmth::Unkept);
    }
    if !results.has_room_for(row_bytes * request.rows) {
        return Ok(Warmth::Full);
    }
    let urgency = Urgency { priority: Priority::Low, deadline: None };
    let errand = Errand { variant, request: &request, urgency, tenant: None, handoff, is_asked: false };
    let key = key(&variant.identity, &request);
    match results.lookup(key, &kept.domain, urgency.rank()) {
        Lookup::Lead(lead) => pipeline.conclude(results, kept, key, lead, errand).await.map(|_| Warmth::Kept),
        Lookup::Hit(_) | Lookup::Follow(_) => Ok(Warmth::Known),
    }
}
