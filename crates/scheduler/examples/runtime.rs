//! From an async runtime: tasks submit, and await their tickets.
//!
//! ```sh
//! cargo run --release -p volley-scheduler --example runtime
//! ```
//!
//! A thousand tasks each ask for a price. Workers are plain threads beside the runtime, so that computing never holds an
//! async thread up; a [`Handoff`] wakes the runtime once for each batch.

use std::error::Error;
use std::io::{Write as _, stdout};
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use volley_scheduler::{Batch, Config, Failure, GroupConfig, Handoff, Priority, Request, Scheduler, SubmitError};

fn main() -> Result<(), Box<dyn Error>> {
    let (scheduler, workers) = Scheduler::<u32, f64>::new(Config::default(), NonZeroUsize::MIN);
    let prices = scheduler.add_group(GroupConfig::up_to(NonZeroUsize::new(64).ok_or("not zero")?));
    let workers: Vec<_> = workers
        .into_iter()
        .map(|worker| {
            thread::spawn(move || {
                worker.run(|batch: &mut Batch<u32, f64>| {
                    // A device takes a millisecond, however many it is asked for.
                    thread::sleep(Duration::from_millis(1));
                    for i in 0..batch.len() {
                        batch.complete(i, f64::from(*batch.payload(i)).sqrt());
                    }
                });
            })
        })
        .collect();
    // Without it, what becomes hopeless while the worker executes is told when it is done.
    let timekeeper = scheduler.timekeeper().ok_or("asked for once")?;
    let timekeeper = thread::spawn(move || timekeeper.run());

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (answered, late, refused) = runtime.block_on(async {
        // One handoff for each runtime thread, and its future to wake the tasks there.
        let handoff = Handoff::new();
        tokio::spawn(handoff.forward());

        let mut tasks = JoinSet::new();
        for number in 0..1_000 {
            let (scheduler, handoff) = (scheduler.clone(), handoff.clone());
            tasks.spawn(async move {
                let priority = if number % 10 == 0 { Priority::Critical } else { Priority::Normal };
                let request = Request::new(prices, number)
                    .priority(priority)
                    .deadline(Instant::now() + Duration::from_millis(100))
                    .handoff(&handoff);
                // Refused at once where it could not be done in time; otherwise a future. Dropping that future, as a
                // timeout or a disconnected client does, withdraws the request.
                Ok::<_, SubmitError<u32>>(scheduler.submit(request)?.await.result)
            });
        }
        let (mut answered, mut late, mut refused) = (0, 0, 0);
        while let Some(outcome) = tasks.join_next().await {
            match outcome.expect("no task panics") {
                Ok(Ok(_price)) => answered += 1,
                Ok(Err(Failure::DeadlineExceeded)) => late += 1,
                Ok(Err(failure)) => panic!("{failure}"),
                Err(_refused) => refused += 1,
            }
        }
        (answered, late, refused)
    });
    writeln!(stdout(), "{answered} answered, {late} told that they would be late, {refused} refused at once")?;

    // The workers finish what was accepted, and return.
    scheduler.close();
    for thread in workers.into_iter().chain([timekeeper]) {
        thread.join().expect("neither panics");
    }
    Ok(())
}
