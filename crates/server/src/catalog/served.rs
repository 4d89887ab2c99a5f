//! What answers requests: a variant of a version of a model.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use volley_cache::{Admission, Domain, KeyHasher};
use volley_gpu_runtime::{Ensemble, Instances, TensorSpec};
use volley_scheduler::GroupId;
use volley_telemetry::{Fault, MemberMetrics, ModelLabels, ModelMetrics, RecoveryMetrics};

use crate::codec::Interface;
use crate::engine::{DeviceScheduler, Health};
use crate::statistics::Statistics;

/// What a request is answered by. It stays loaded for as long as a request holds it, wherever the catalog has got to.
#[derive(Debug)]
pub(crate) struct ServedVariant {
    /// The model's name.
    pub model_name: String,
    /// The version, as the protocol writes it.
    pub version: String,
    /// The variant's name.
    pub variant: String,
    /// What runs it.
    pub runs: Runs,
    /// The scheduler's names for its requests.
    pub groups: Groups,
    /// The start of its cache keys.
    pub identity: KeyHasher,
    /// How its results are kept, if they are.
    pub kept: Option<Kept>,
    /// Where its requests are counted.
    pub metrics: ModelMetrics,
    /// Where its failures are counted.
    pub recovery: RecoveryMetrics,
    /// What Triton's callers ask of it.
    pub statistics: Statistics,
    /// Whether it takes requests.
    pub health: Health,
    /// Rows of the largest request.
    pub max_rows: usize,
    /// Whether NaN and infinities are let through.
    pub allow_non_finite: bool,
}

/// How a variant's results are kept.
#[derive(Debug)]
pub(crate) struct Kept {
    /// What they are invalidated by.
    pub domain: Domain,
    admission: Mutex<Admission>,
}

impl Kept {
    pub(crate) fn new(domain: Domain) -> Self {
        Self { domain, admission: Mutex::default() }
    }

    /// Whether looking requests up pays. Held for a few additions.
    pub(crate) fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What runs a variant.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are as many as there are variants, and they stay where they are")]
pub(crate) enum Runs {
    /// One model.
    One(Instances),
    /// An ensemble.
    Several(Members),
}

/// The members of an ensemble.
#[derive(Debug)]
pub(crate) struct Members {
    /// How their answers become one.
    pub ensemble: Ensemble,
    /// Whom to ask; at least one.
    pub members: Vec<Member>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Member {
    /// What it runs; never an ensemble.
    pub variant: Arc<ServedVariant>,
    /// Where its failures are counted.
    pub metrics: MemberMetrics,
}

/// The groups of one variant in the device's scheduler, removed with it.
#[derive(Debug)]
pub(crate) struct Groups {
    /// Requests at their first try.
    pub together: GroupId,
    /// Requests whose batch failed: each goes alone, so that what makes batches fail takes nobody down twice.
    pub alone: GroupId,
    /// Theirs.
    pub scheduler: DeviceScheduler,
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.scheduler.remove_group(self.together);
        self.scheduler.remove_group(self.alone);
    }
}

impl ServedVariant {
    /// What a request for this variant must look like. `uncertainty` is whether an ensemble's standard deviations are
    /// among the outputs.
    pub(crate) fn interface(&self, uncertainty: bool) -> Interface<'_> {
        let outputs = match &self.runs {
            Runs::Several(several) if !uncertainty => &self.outputs()[..several.ensemble.means()],
            _ => self.outputs(),
        };
        Interface { inputs: self.inputs(), outputs, max_rows: self.max_rows, allow_non_finite: self.allow_non_finite }
    }

    /// The model's inputs.
    pub(crate) fn inputs(&self) -> &[TensorSpec] {
        match &self.runs {
            Runs::One(instances) => instances.model().inputs(),
            Runs::Several(several) => several.members[0].variant.inputs(),
        }
    }

    /// All outputs.
    pub(crate) fn outputs(&self) -> &Arc<[TensorSpec]> {
        match &self.runs {
            Runs::One(instances) => instances.model().outputs(),
            Runs::Several(several) => several.ensemble.outputs(),
        }
    }

    /// The execution provider that really runs it.
    pub(crate) fn provider(&self) -> &'static str {
        match &self.runs {
            Runs::One(instances) => instances.model().placement().provider.name(),
            Runs::Several(several) => several.members[0].variant.provider(),
        }
    }

    /// What it is counted under.
    pub(crate) fn labels(&self) -> ModelLabels<'_> {
        ModelLabels { model: &self.model_name, version: &self.version, variant: &self.variant }
    }

    /// How many models answer a request when all is well.
    pub(crate) fn size(&self) -> usize {
        match &self.runs {
            Runs::One(_) => 1,
            Runs::Several(several) => several.members.len(),
        }
    }

    /// Whether it takes no requests, because its batches kept failing; an ensemble, because all its members' did.
    pub(crate) fn is_out(&self) -> bool {
        match &self.runs {
            Runs::One(_) => self.health.is_out(),
            Runs::Several(several) => several.members.iter().all(|member| member.variant.is_out()),
        }
    }

    /// Takes down that a batch of it failed.
    pub(crate) fn batch_failed(&self, fault: Fault) {
        self.recovery.batch_failed(fault);
        // A run that fails may be its request's doing: whether the model still works, the session shows that is opened and
        // warmed up next. What costs a worker its time counts whatever the reason.
        let counts = matches!(fault, Fault::NoSession | Fault::Interrupted | Fault::Abandoned);
        if counts && self.health.failed() {
            let (model, version, variant) = (&self.model_name, &self.version, &self.variant);
            tracing::error!(model, version, variant, "taken out: its batches keep failing");
        }
    }
}
