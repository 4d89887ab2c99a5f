//! Which models are loaded, and what runs them.

use crate::model::ModelLabels;
use crate::names;

/// The value of a gauge whose subject is gone: the exposition leaves it out, where 0 would say that something is wrong.
const GONE: f64 = f64::NAN;

/// A variant is ready, run by the execution `provider` that was verified to be in use.
pub fn model_loaded(labels: ModelLabels<'_>, provider: &str) {
    let ModelLabels { model, version, variant } = labels;
    names::MODEL_INFO.gauge(&[model, version, variant, provider]).set(1.0);
    names::MODELS_LOADED.gauge(&[]).increment(1.0);
}

/// A variant that was announced by [`model_loaded`] is gone.
pub fn model_unloaded(labels: ModelLabels<'_>, provider: &str) {
    let ModelLabels { model, version, variant } = labels;
    names::MODEL_INFO.gauge(&[model, version, variant, provider]).set(GONE);
    variant_gone(labels);
    names::MODELS_LOADED.gauge(&[]).decrement(1.0);
}

/// Whatever [`RecoveryMetrics`](crate::RecoveryMetrics) was told of how a variant does, it is gone: for whoever told it so
/// late that it may have been unloaded meanwhile.
pub fn variant_gone(ModelLabels { model, version, variant }: ModelLabels<'_>) {
    for of_loaded in [names::MODEL_HEALTHY, names::ROW_LIMIT] {
        of_loaded.gauge(&[model, version, variant]).set(GONE);
    }
}

/// A load of `model` failed; `reason` is one of a fixed set of words.
pub fn model_load_failed(model: &str, reason: &str) {
    names::LOAD_FAILURES.counter(&[model, reason]).increment(1);
}
