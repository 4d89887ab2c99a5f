//! The scheduler as it is: its workers take turns leading.

use std::num::NonZeroUsize;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use volley_scheduler::{Batch, Config, GroupConfig, GroupId, Request, Scheduler, Ticket};

use crate::load::{Job, Server, Work};

pub(crate) struct Leaders {
    scheduler: Scheduler<Job, ()>,
    group: GroupId,
    workers: Vec<JoinHandle<()>>,
}

impl Leaders {
    pub(crate) fn start(config: Config, group: GroupConfig, workers: NonZeroUsize, work: &Work) -> Self {
        let (scheduler, workers) = Scheduler::new(config, workers);
        let group = scheduler.add_group(group);
        let workers = workers
            .into_iter()
            .map(|worker| {
                let work = work.clone();
                thread::spawn(move || {
                    worker.run(|batch: &mut Batch<Job, ()>| {
                        work.execute(batch.rows());
                        work.record(batch.payloads(), Instant::now());
                        (0..batch.len()).for_each(|i| batch.complete(i, ()));
                    });
                })
            })
            .collect();
        Self { scheduler, group, workers }
    }
}

impl Server for Leaders {
    type Answer = Ticket<()>;

    fn submit(&self, submitted: Instant) -> Ticket<()> {
        self.scheduler.submit(Request::new(self.group, Job { submitted, promise: None })).expect("there is room")
    }

    fn wait(answer: Ticket<()>) {
        answer.wait().result.expect("every job is answered");
    }
}

impl Drop for Leaders {
    fn drop(&mut self) {
        self.scheduler.close();
        for worker in self.workers.drain(..) {
            worker.join().expect("a worker ends");
        }
    }
}
