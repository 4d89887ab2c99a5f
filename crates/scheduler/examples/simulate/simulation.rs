//! Virtual time: what happens next, and what follows from it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use volley_scheduler::Priority;
use volley_scheduler::step::Step;

use crate::arrivals::Arrival;
use crate::device::Device;
use crate::fleet::{Fleet, Setting};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Not accepted.
    Refused,
    /// Accepted, and given up before it cost compute.
    Dropped,
    Answered,
}

/// One request's story.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) arrival: Arrival,
    pub(crate) end: End,
    /// When its caller heard, from the start of the simulation.
    pub(crate) told: Duration,
}

/// What a simulation gives.
pub(crate) struct History {
    /// In order of arrival.
    pub(crate) records: Vec<Record>,
    pub(crate) batches: u64,
    /// Over time, member and place of every batch: equal only if the batches are.
    pub(crate) fingerprint: u64,
    /// The fleet's size each time the autoscaler looked.
    pub(crate) sizes: Vec<usize>,
    /// Device-seconds that replicas had, and that batches took.
    pub(crate) available: f64,
    pub(crate) used: f64,
}

/// What happens by itself; arrivals come from outside.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Done { replica: usize, took: Duration, rows: usize, members: Vec<usize> },
    Ask { replica: usize },
    Scale,
}

struct Simulation {
    fleet: Fleet,
    device: Device,
    quota: NonZeroU32,
    start: Instant,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    sequence: u64,
    noise: Xoshiro256PlusPlus,
    history: History,
    fingerprint: DefaultHasher,
}

/// Runs `arrivals` through a fleet. The same seed and arrivals give the same history.
pub(crate) fn simulate(setting: Setting, arrivals: impl Iterator<Item = Arrival>, seed: u64) -> History {
    let mut routing = Xoshiro256PlusPlus::seed_from_u64(seed.wrapping_add(1));
    let start = Instant::now();
    let mut simulation = Simulation {
        device: setting.device,
        quota: setting.quota,
        fleet: Fleet::new(setting, start),
        start,
        events: BinaryHeap::new(),
        sequence: 0,
        noise: Xoshiro256PlusPlus::seed_from_u64(seed.wrapping_add(2)),
        history: History {
            records: Vec::new(),
            batches: 0,
            fingerprint: 0,
            sizes: Vec::new(),
            available: 0.0,
            used: 0.0,
        },
        fingerprint: DefaultHasher::new(),
    };
    simulation.schedule(Duration::ZERO, Event::Scale);
    for arrival in arrivals {
        simulation.advance(arrival.at);
        let replica = simulation.fleet.route(arrival.at, &mut routing);
        simulation.submit(replica, arrival);
    }
    simulation.finish()
}

impl Simulation {
    fn schedule(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    /// Lets everything happen that happens by itself until `now`.
    fn advance(&mut self, now: Duration) {
        while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            if let Some(Reverse((at, _, event))) = self.events.pop() {
                self.happen(at, event);
            }
        }
    }

    fn finish(mut self) -> History {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if event != Event::Scale {
                self.happen(at, event);
            }
        }
        self.history.fingerprint = self.fingerprint.finish();
        self.history
    }

    fn happen(&mut self, now: Duration, event: Event) {
        match event {
            Event::Scale => {
                let size = self.fleet.size();
                let next = self.fleet.scale(now);
                self.history.sizes.push(size);
                self.history.available += size as f64 * (next - now).as_secs_f64();
                self.schedule(next, Event::Scale);
            }
            Event::Ask { replica } => self.ask(replica, now),
            Event::Done { replica, took, rows, members } => {
                for member in members {
                    self.tell(member, End::Answered, now);
                }
                let group = self.fleet.replicas[replica].group;
                self.fleet.replicas[replica].idle = true;
                self.fleet.replicas[replica].stepper.done(self.start + now, group, rows, took);
                self.ask(replica, now);
            }
        }
    }

    fn submit(&mut self, replica: usize, arrival: Arrival) {
        let number = self.history.records.len();
        self.history.records.push(Record { arrival, end: End::Refused, told: arrival.at });
        let target = &mut self.fleet.replicas[replica];
        let request = target.request(&arrival, number, self.start, self.quota);
        if target.stepper.submit(self.start + arrival.at, request).is_ok() {
            self.ask(replica, arrival.at);
        }
    }

    /// Asks a replica's scheduler what to do, until there is nothing to do now.
    fn ask(&mut self, replica: usize, at: Duration) {
        let now = self.start + at;
        loop {
            let asked = &mut self.fleet.replicas[replica];
            let step = asked.stepper.step(now, usize::from(asked.idle));
            let dropped: Vec<_> = asked.stepper.refused().map(|member| member.payload).collect();
            for number in dropped {
                self.tell(number, End::Dropped, at);
            }
            let asked = &mut self.fleet.replicas[replica];
            match step {
                Step::Batch(batch) => {
                    asked.idle = false;
                    let members: Vec<_> = batch.members.iter().map(|member| member.payload).collect();
                    (at, replica, &members).hash(&mut self.fingerprint);
                    let took = self.device.draw(batch.rows, &mut self.noise);
                    self.history.batches += 1;
                    self.history.used += took.as_secs_f64();
                    self.schedule(at + took, Event::Done { replica, took, rows: batch.rows, members });
                }
                Step::Wait(until) => {
                    // Asked too often does no harm, so a request to be asked that is outdated is left to happen.
                    let is_news = asked.asked_for.is_none_or(|known| known <= now || until < known);
                    if is_news {
                        asked.asked_for = Some(until);
                        let until = until.max(now + Duration::from_nanos(1)).duration_since(self.start);
                        self.schedule(until, Event::Ask { replica });
                    }
                    return;
                }
                Step::Idle => return,
            }
        }
    }

    fn tell(&mut self, number: usize, end: End, at: Duration) {
        let record = &mut self.history.records[number];
        record.end = end;
        record.told = at;
    }
}

impl Record {
    pub(crate) fn latency(&self) -> Duration {
        self.told - self.arrival.at
    }

    pub(crate) fn in_time(&self) -> bool {
        self.end == End::Answered && self.latency() <= self.arrival.deadline
    }

    pub(crate) fn late(&self) -> bool {
        self.end == End::Answered && self.latency() > self.arrival.deadline
    }

    pub(crate) fn is_in(&self, lane: Priority) -> bool {
        self.arrival.lane == lane
    }
}
