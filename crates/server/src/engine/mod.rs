//! A device's scheduler, the threads that run its batches, and what watches over them.

mod health;
mod job;
mod runner;
mod watchdog;
mod workers;

use volley_scheduler::Scheduler;

pub(crate) use health::Health;
pub(crate) use job::{Computed, Job, JobResult};
pub(crate) use workers::{Pinning, Workers};

/// The scheduler of one device: requests in, results out.
pub(crate) type DeviceScheduler = Scheduler<Job, JobResult>;
