//! What a submit costs over its floor, in instructions, which repeat exactly; in time where valgrind is missing.
//!
//! The program runs itself under callgrind, which counts only what happens in the loop over the operation.

use std::error::Error;
use std::hint::black_box;
use std::mem::ManuallyDrop;
use std::num::{NonZeroU32, NonZeroUsize};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use volley_scheduler::{Batch, Config, GroupConfig, Request, Scheduler, TenantId};

use crate::rivals::positive;

/// Operations per counted run.
const COUNTED: usize = 4_000;
/// Batches of which the scheduler learns before its submits are counted.
const LESSONS: usize = 20;
/// Operations per timed run, and runs, for machines without valgrind.
const TIMED: usize = 100_000;
const RUNS: usize = 15;

/// What costs are compared.
#[derive(Clone, Copy)]
pub(crate) enum Operation {
    /// A push into a bare queue, one allocation and one look at the clock: what any such scheduler pays.
    Floor,
    Submit,
    /// With a deadline, where what a batch costs is known: the submit predicts its wait.
    Deadline,
    /// On behalf of a tenant.
    Tenant,
}

/// The cost of one operation each, and in what.
pub(crate) struct Costs {
    pub(crate) floor: f64,
    pub(crate) submit: f64,
    pub(crate) deadline: f64,
    pub(crate) tenant: f64,
    pub(crate) unit: &'static str,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Floor, Self::Submit, Self::Deadline, Self::Tenant];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Submit => "submit",
            Self::Deadline => "deadline",
            Self::Tenant => "tenant",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }

    /// Runs it `count` times on this thread. Returns the nanoseconds that one took.
    pub(crate) fn run(self, count: usize) -> f64 {
        match self {
            Self::Floor => {
                let queue = ArrayQueue::new(count);
                counted(count, |value| {
                    let pushed = queue.push(Box::new((value, Instant::now())));
                    assert!(black_box(pushed).is_ok(), "the queue has room for all");
                })
            }
            Self::Submit => submits(count, |request, _| request),
            Self::Deadline => {
                let due = Instant::now() + Duration::from_hours(1);
                submits(count, |request, _| request.deadline(due))
            }
            Self::Tenant => submits(count, Request::tenant),
        }
    }
}

/// The nanoseconds of a submit, while the only worker executes: nobody is to be woken. It goes on executing until the
/// process ends, so that nothing but submits is counted.
fn submits(count: usize, kind: impl Fn(Request<usize>, TenantId) -> Request<usize>) -> f64 {
    let config = Config { lane_capacity: positive(count + 1), ..Config::default() };
    let (scheduler, mut workers) = Scheduler::<usize, usize>::new(config, NonZeroUsize::MIN);
    let group = scheduler.add_group(GroupConfig::up_to(positive(64)));
    let tenant = scheduler.add_tenant(NonZeroU32::MAX);
    let (executes, is_executing) = mpsc::channel();
    let worker = workers.pop().expect("one worker was asked for");
    thread::spawn(move || {
        let mut batches = 0;
        worker.run(|batch: &mut Batch<usize, usize>| {
            batches += 1;
            if batches > LESSONS {
                executes.send(()).expect("the caller listens");
                loop {
                    thread::park();
                }
            }
            batch.complete(0, 0);
        });
    });
    let submit = |value| scheduler.submit(kind(Request::new(group, value), tenant)).expect("there is room");
    for _ in 0..LESSONS {
        assert!(submit(0).wait().result.is_ok(), "the executor answers");
    }
    let blocking = submit(0);
    is_executing.recv().expect("the worker executes");
    let nanos = counted(count, |value| {
        // Dropping the ticket would withdraw the request, which is not part of a submit.
        let _ = black_box(ManuallyDrop::new(submit(value)));
    });
    drop(blocking);
    nanos
}

/// Runs the operation so many times; callgrind counts what happens in here. The nanoseconds of one.
#[inline(never)]
fn counted(count: usize, mut operation: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    for value in 0..count {
        operation(value);
    }
    start.elapsed().as_nanos() as f64 / count as f64
}

/// Measures the operations.
///
/// # Errors
/// When callgrind runs and its count cannot be read.
pub(crate) fn costs() -> Result<Costs, Box<dyn Error>> {
    let valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !valgrind.is_ok_and(|status| status.success()) {
        let least = |operation: Operation| (0..RUNS).map(|_| operation.run(TIMED)).fold(f64::INFINITY, f64::min);
        return Ok(Costs {
            floor: least(Operation::Floor),
            submit: least(Operation::Submit),
            deadline: least(Operation::Deadline),
            tenant: least(Operation::Tenant),
            unit: "ns",
        });
    }
    let per_operation =
        |operation| -> Result<f64, Box<dyn Error>> { Ok(instructions(operation, COUNTED)? as f64 / COUNTED as f64) };
    Ok(Costs {
        floor: per_operation(Operation::Floor)?,
        submit: per_operation(Operation::Submit)?,
        deadline: per_operation(Operation::Deadline)?,
        tenant: per_operation(Operation::Tenant)?,
        unit: "instructions",
    })
}

fn instructions(operation: Operation, count: usize) -> Result<i64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--fair-sched=try",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
            "--toggle-collect=*counted*",
        ])
        .arg(std::env::current_exe()?)
        .args(["--count", operation.name(), &count.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
    let collected = collected.ok_or_else(|| format!("callgrind did not say what it collected:\n{said}"))?;
    Ok(collected.parse()?)
}
