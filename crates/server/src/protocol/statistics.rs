//! What each version of a model has done since it was loaded, in Triton's shape.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::catalog::{Catalog, Selection};
use crate::error::ApiError;
use crate::statistics::{Computing, Statistics, Tally};

/// The statistics of some model versions.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
pub(crate) struct ModelStatisticsResponse {
    #[prost(message, repeated, tag = "1")]
    model_stats: Vec<ModelStatistics>,
}

/// Those of one, over all its variants.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
struct ModelStatistics {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    /// When the last batch ended, in milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    last_inference: u64,
    /// Rows that were computed.
    #[prost(uint64, tag = "4")]
    inference_count: u64,
    /// Batches.
    #[prost(uint64, tag = "5")]
    execution_count: u64,
    #[prost(message, optional, tag = "6")]
    inference_stats: Option<InferStatistics>,
    #[prost(message, repeated, tag = "7")]
    batch_stats: Vec<BatchStatistics>,
}

/// Of requests.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize)]
struct InferStatistics {
    #[prost(message, required, tag = "1")]
    success: StatisticDuration,
    #[prost(message, required, tag = "2")]
    fail: StatisticDuration,
    #[prost(message, required, tag = "3")]
    queue: StatisticDuration,
    #[prost(message, required, tag = "4")]
    compute_input: StatisticDuration,
    #[prost(message, required, tag = "5")]
    compute_infer: StatisticDuration,
    #[prost(message, required, tag = "6")]
    compute_output: StatisticDuration,
    #[prost(message, required, tag = "7")]
    cache_hit: StatisticDuration,
    #[prost(message, required, tag = "8")]
    cache_miss: StatisticDuration,
}

/// Of batches of one size.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize)]
struct BatchStatistics {
    #[prost(uint64, tag = "1")]
    batch_size: u64,
    #[prost(message, required, tag = "2")]
    compute_input: StatisticDuration,
    #[prost(message, required, tag = "3")]
    compute_infer: StatisticDuration,
    #[prost(message, required, tag = "4")]
    compute_output: StatisticDuration,
}

/// How often something happened, and how many nanoseconds it took, all together.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize)]
struct StatisticDuration {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(uint64, tag = "2")]
    ns: u64,
}

impl StatisticDuration {
    fn add(&mut self, tally: &Tally) {
        let (count, ns) = tally.read();
        self.count += count;
        self.ns += ns;
    }
}

impl ModelStatisticsResponse {
    /// Those of `model`, or of all models; of its `version`, or of all its versions.
    ///
    /// # Errors
    /// [`ApiError`] with status 404 for a model or version that is not served.
    pub(crate) fn of(catalog: &Catalog, model: Option<&str>, version: Option<&str>) -> Result<Self, ApiError> {
        if let Some(model) = model {
            catalog.find(model, Selection { version, ..Selection::default() })?;
        }
        let mut of_versions: BTreeMap<(String, u64), ModelStatistics> = BTreeMap::new();
        for variant in catalog.variants() {
            let asked = model.is_none_or(|model| model == variant.model_name)
                && version.is_none_or(|version| version == variant.version);
            if asked {
                let number = variant.version.parse().unwrap_or_default();
                of_versions
                    .entry((variant.model_name.clone(), number))
                    .or_insert_with(|| ModelStatistics {
                        name: variant.model_name.clone(),
                        version: variant.version.clone(),
                        ..ModelStatistics::default()
                    })
                    .add(&variant.statistics);
            }
        }
        Ok(Self { model_stats: of_versions.into_values().collect() })
    }
}

impl ModelStatistics {
    fn add(&mut self, variant: &Statistics) {
        self.last_inference = self.last_inference.max(variant.last());
        self.inference_count += variant.inferences();
        let requests = self.inference_stats.get_or_insert_default();
        requests.success.add(&variant.success);
        requests.fail.add(&variant.fail);
        requests.queue.add(&variant.queue);
        requests.cache_hit.add(&variant.cache_hit);
        requests.cache_miss.add(&variant.cache_miss);
        let Computing { input, infer, output } = &variant.computing;
        requests.compute_input.add(input);
        requests.compute_infer.add(infer);
        requests.compute_output.add(output);
        for (rows, Computing { input, infer, output }) in variant.batches() {
            let (count, _) = infer.read();
            if count == 0 {
                continue;
            }
            self.execution_count += count;
            let size = rows as u64;
            let place = self.batch_stats.partition_point(|batch| batch.batch_size < size);
            if self.batch_stats.get(place).is_none_or(|batch| batch.batch_size != size) {
                self.batch_stats.insert(place, BatchStatistics { batch_size: size, ..BatchStatistics::default() });
            }
            let batch = &mut self.batch_stats[place];
            batch.compute_input.add(input);
            batch.compute_infer.add(infer);
            batch.compute_output.add(output);
        }
    }
}
