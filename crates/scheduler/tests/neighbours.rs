//! A greedy tenant and its neighbours, on real threads. Waits are counted in batches, so that the machine's own pace does
//! not matter.

#![cfg(not(loom))]

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use volley_scheduler::{Batch, Config, GroupConfig, GroupId, Priority, Request, Scheduler, TenantId};

const FULL: usize = 32;
const NEIGHBOURS: usize = 4;
/// Requests that a neighbour has under way at a time: with the others' half of a full batch.
const AT_ONCE: usize = 4;
const ROUNDS: usize = 80;
/// How often the greedy tenant asks before it pauses for a millisecond: a hundred times what it gets.
const GREED: usize = 100;
/// Half a second, in which the device does some fifty batches.
const DEADLINE: Duration = Duration::from_millis(500);
/// What a request counts for that was refused or dropped.
const NEVER: usize = usize::MAX;

fn request(group: GroupId, tenant: TenantId, number: usize) -> Request<()> {
    let lane = Priority::ALL[number % Priority::COUNT];
    Request::new(group, ()).tenant(tenant).priority(lane).deadline(Instant::now() + DEADLINE)
}

/// How many batches began from a neighbour's submission to its execution, its own included: the 99th percentile.
fn batches_waited(with_greedy_tenant: bool) -> usize {
    let (scheduler, workers) = Scheduler::<(), usize>::new(Config::default(), NonZeroUsize::MIN);
    let group = scheduler.add_group(GroupConfig::up_to(NonZeroUsize::new(FULL).expect("positive")));
    let quota = NonZeroU32::new(4_000).expect("positive");
    let greedy = scheduler.add_tenant(quota);
    let (batches, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut waits = thread::scope(|scope| {
        for worker in workers {
            scope.spawn(|| {
                worker.run(|batch: &mut Batch<(), usize>| {
                    let number = batches.fetch_add(1, Ordering::SeqCst) + 1;
                    thread::sleep(Duration::from_micros(4_000 + 300 * batch.rows() as u64));
                    for i in 0..batch.len() {
                        batch.complete(i, number);
                    }
                });
            });
        }
        if with_greedy_tenant {
            scope.spawn(|| {
                let mut tickets = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    for number in 0..GREED {
                        tickets.extend(scheduler.submit(request(group, greedy, number)));
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let neighbours: Vec<_> = (0..NEIGHBOURS)
            .map(|_| {
                let tenant = scheduler.add_tenant(quota);
                let (scheduler, batches) = (&scheduler, &batches);
                scope.spawn(move || {
                    let mut waits = Vec::new();
                    for _ in 0..ROUNDS {
                        let sent: Vec<_> = (0..AT_ONCE)
                            .map(|number| {
                                let before = batches.load(Ordering::SeqCst);
                                (before, scheduler.submit(request(group, tenant, number)))
                            })
                            .collect();
                        for (before, ticket) in sent {
                            let executed = ticket.ok().and_then(|ticket| ticket.wait().result.ok());
                            waits.push(executed.map_or(NEVER, |number| number - before));
                        }
                    }
                    waits
                })
            })
            .collect();
        let waits: Vec<_> = neighbours.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect();
        is_over.store(true, Ordering::SeqCst);
        scheduler.close();
        waits
    });
    waits.sort_unstable();
    waits[waits.len() * 99 / 100]
}

#[test]
fn a_greedy_tenant_makes_its_neighbours_wait_for_at_most_one_more_batch() {
    let (before, after) = (batches_waited(false), batches_waited(true));
    assert!(after <= before + 1 + before / 10, "{before} batches became {after}");
}
