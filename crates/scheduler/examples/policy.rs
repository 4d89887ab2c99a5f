//! A policy of one's own: when does a batch go?
//!
//! ```sh
//! cargo run --release -p volley-scheduler --example policy
//! ```
//!
//! The work here is a device that takes four at a time, so that five cost as much as eight. The policy waits, for at
//! most two milliseconds, until the rows that wait are a multiple of four. Everything else stays as it is: full batches
//! go at once, deadlines are kept, order and fairness hold.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Write as _, stdout};
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use volley_scheduler::{Batch, Config, Forming, GroupConfig, Policy, Request, Scheduler};

const LANES: usize = 4;

/// Pure: what it is told is all that it knows. It is asked again at every arrival, and when the time it gave has come.
fn in_fours(forming: &Forming) -> Instant {
    if forming.rows.is_multiple_of(LANES) { forming.now } else { forming.oldest + Duration::from_millis(2) }
}

fn main() -> Result<(), Box<dyn Error>> {
    for (name, policy) in [("eager", Policy::Eager), ("in fours", Policy::Custom(in_fours))] {
        let sizes = batch_sizes(policy)?;
        let batches: u32 = sizes.values().sum();
        let uneven: u32 = sizes.iter().filter(|(size, _)| *size % LANES != 0).map(|(_, n)| n).sum();
        writeln!(stdout(), "{name:<9} {batches} batches, {uneven} of them no multiple of {LANES}: {sizes:?}")?;
    }
    Ok(())
}

/// How often each size of batch occurred while 1,000 requests came, one every 50 microseconds or so.
fn batch_sizes(policy: Policy) -> Result<BTreeMap<usize, u32>, Box<dyn Error>> {
    let config = Config { policy, ..Config::default() };
    let (scheduler, workers) = Scheduler::new(config, NonZeroUsize::MIN);
    let group = scheduler.add_group(GroupConfig::up_to(NonZeroUsize::new(16).ok_or("not zero")?));
    thread::scope(|scope| {
        for worker in workers {
            scope.spawn(|| {
                worker.run(|batch: &mut Batch<u32, usize>| {
                    let passes = batch.len().div_ceil(LANES) as u32;
                    thread::sleep(Duration::from_micros(100) * passes);
                    for i in 0..batch.len() {
                        batch.complete(i, batch.len());
                    }
                });
            });
        }
        let mut tickets = Vec::new();
        for number in 0..1_000 {
            tickets.push(scheduler.submit(Request::new(group, number))?);
            thread::sleep(Duration::from_micros(1));
        }
        // Each request of a batch of n reports n.
        let mut requests = BTreeMap::<usize, u32>::new();
        for ticket in tickets {
            *requests.entry(ticket.wait().result?).or_default() += 1;
        }
        scheduler.close();
        Ok(requests.into_iter().map(|(size, requests)| (size, requests / size as u32)).collect())
    })
}
