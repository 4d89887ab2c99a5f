//! What a submit costs over its floor, in instructions, which repeat exactly; in time where valgrind is missing.
//!
//! The program runs itself under callgrind with two counts of operations and takes the difference, which leaves
//! nothing of start-up and tear-down.

use std::error::Error;
use std::hint::black_box;
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use volley_scheduler::{Config, GroupConfig, Request, Scheduler};

use crate::rivals::positive;

const FEW: usize = 1_000;
const MANY: usize = 5_000;
/// Operations per timed run, and runs, for machines without valgrind.
const TIMED: usize = 100_000;
const RUNS: usize = 15;

/// What costs are compared.
#[derive(Clone, Copy)]
pub(crate) enum Operation {
    /// A push into a bare queue, one allocation and one look at the clock: what any such scheduler pays.
    Floor,
    Submit,
}

/// The cost of one operation each, and in what.
pub(crate) struct Costs {
    pub(crate) floor: f64,
    pub(crate) submit: f64,
    pub(crate) unit: &'static str,
}

impl Operation {
    const ALL: [Self; 2] = [Self::Floor, Self::Submit];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Submit => "submit",
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
                let start = Instant::now();
                for value in 0..count {
                    let pushed = queue.push(Box::new((value, Instant::now())));
                    assert!(black_box(pushed).is_ok(), "the queue has room for all");
                }
                start.elapsed().as_nanos() as f64 / count as f64
            }
            Self::Submit => {
                let config = Config { lane_capacity: positive(count), ..Config::default() };
                // The worker never runs: as while it executes, nobody is to be woken.
                let (scheduler, _workers) = Scheduler::<usize, usize>::new(config, NonZeroUsize::MIN);
                let group = scheduler.add_group(GroupConfig::up_to(positive(64)));
                let start = Instant::now();
                for value in 0..count {
                    let ticket = scheduler.submit(Request::new(group, value)).expect("the lane has room for all");
                    // Dropping it would withdraw the request, which is not part of a submit.
                    let _ = black_box(ManuallyDrop::new(ticket));
                }
                start.elapsed().as_nanos() as f64 / count as f64
            }
        }
    }
}

/// Measures both operations.
///
/// # Errors
/// When callgrind runs and its count cannot be read.
pub(crate) fn costs() -> Result<Costs, Box<dyn Error>> {
    let valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !valgrind.is_ok_and(|status| status.success()) {
        let least = |operation: Operation| (0..RUNS).map(|_| operation.run(TIMED)).fold(f64::INFINITY, f64::min);
        return Ok(Costs { floor: least(Operation::Floor), submit: least(Operation::Submit), unit: "ns" });
    }
    let per_operation = |operation| -> Result<f64, Box<dyn Error>> {
        let difference = instructions(operation, MANY)? - instructions(operation, FEW)?;
        Ok(difference as f64 / (MANY - FEW) as f64)
    };
    Ok(Costs {
        floor: per_operation(Operation::Floor)?,
        submit: per_operation(Operation::Submit)?,
        unit: "instructions",
    })
}

fn instructions(operation: Operation, count: usize) -> Result<i64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--count", operation.name(), &count.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
    let collected = collected.ok_or_else(|| format!("callgrind did not say what it collected:\n{said}"))?;
    Ok(collected.parse()?)
}
