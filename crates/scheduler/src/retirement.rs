//! Groups that are to go: handed from whoever removes them to the leader, who knows what of them still waits.

use crate::GroupId;
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Groups that were removed and that no leader has heard of.
///
/// The lock is held for moments, and never while anything of the user's runs: a group may be removed from anywhere, the
/// drop of a payload included.
pub(crate) struct Retirement {
    /// How many there are. Written with the lock held; read without it by a leader, for whom zero spares the lock. It
    /// publishes nothing, hence relaxed: a leader that misses one is nudged to look again.
    count: AtomicUsize,
    groups: Mutex<Vec<GroupId>>,
}

impl Retirement {
    pub(crate) fn new() -> Self {
        Self { count: AtomicUsize::new(0), groups: Mutex::new(Vec::new()) }
    }

    pub(crate) fn add(&self, group: GroupId) {
        let mut groups = self.groups.lock();
        groups.push(group);
        self.count.store(groups.len(), Ordering::Relaxed);
    }

    /// Has `retire` hear of each; returns whether there was any.
    pub(crate) fn take(&self, retire: impl FnMut(GroupId)) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut groups = self.groups.lock();
        let any = !groups.is_empty();
        groups.drain(..).for_each(retire);
        self.count.store(0, Ordering::Relaxed);
        any
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::num::NonZeroUsize;
    use std::thread;

    use crate::{Batch, Config, GroupConfig, GroupId, Request, Scheduler};

    fn up_to_8() -> GroupConfig {
        GroupConfig::up_to(NonZeroUsize::new(8).expect("positive"))
    }

    /// Removes its group when it is dropped, as the last request of a model version does.
    struct Last(Scheduler<Last, ()>, GroupId);

    impl Drop for Last {
        fn drop(&mut self) {
            self.0.remove_group(self.1);
        }
    }

    #[test]
    fn groups_that_come_and_go_leave_nothing_behind() {
        let (scheduler, mut workers) = Scheduler::<u32, u32>::new(Config::default(), NonZeroUsize::MIN);
        let worker = workers.pop().expect("one");
        let worker = thread::spawn(move || {
            worker.run(|batch: &mut Batch<u32, u32>| {
                (0..batch.len()).for_each(|i| batch.complete(i, *batch.payload(i)));
            });
        });
        for number in 0..10_000 {
            let group = scheduler.add_group(if number % 2 == 0 {
                up_to_8()
            } else {
                GroupConfig::of_sizes([NonZeroUsize::MIN])
            });
            let ticket = scheduler.submit(Request::new(group, number)).expect("there is room");
            if number % 3 == 0 {
                // While it may still wait.
                scheduler.remove_group(group);
                assert_eq!(ticket.wait().result, Ok(number));
            } else {
                assert_eq!(ticket.wait().result, Ok(number));
                scheduler.remove_group(group);
            }
        }
        let last = scheduler.add_group(up_to_8());
        let ticket = scheduler.submit(Request::new(last, 1)).expect("there is room");
        assert_eq!(ticket.wait().result, Ok(1));
        let queue = scheduler.queue_for_tests();
        assert!(queue.groups() <= 2, "{} groups are left", queue.groups());
        drop(queue);
        scheduler.close();
        worker.join().expect("it ends");
    }

    #[test]
    fn what_waits_of_a_removed_group_is_executed_and_the_drop_of_a_payload_may_remove_it() {
        let (scheduler, mut workers) = Scheduler::<Last, ()>::new(Config::default(), NonZeroUsize::MIN);
        let group = scheduler.add_group(up_to_8());
        let submit = || {
            let Ok(ticket) = scheduler.submit(Request::new(group, Last(scheduler.clone(), group))) else {
                panic!("there is room")
            };
            ticket
        };
        let tickets: Vec<_> = (0..20).map(|_| submit()).collect();
        // Withdrawn, so that the leader finds it with its lock held.
        drop(submit());
        scheduler.remove_group(group);
        scheduler.close();
        workers.pop().expect("one").run(|batch: &mut Batch<Last, ()>| {
            (0..batch.len()).for_each(|i| batch.complete(i, ()));
        });
        for ticket in tickets {
            assert_eq!(ticket.wait().result, Ok(()));
        }
    }
}
