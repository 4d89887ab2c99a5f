//! Replicas: one scheduler and one device each, a balancer before them and an autoscaler above.

use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use volley_scheduler::step::Stepper;
use volley_scheduler::{Config, GroupConfig, GroupId, Request, TenantId};

use crate::arrivals::Arrival;
use crate::device::Device;

/// How the fleet grows and shrinks.
#[derive(Debug, Clone)]
pub(crate) struct Scaling {
    pub(crate) replicas: RangeInclusive<usize>,
    /// The share of a device's ceiling that the offered load is to take.
    pub(crate) target: f64,
    /// How often it looks.
    pub(crate) interval: Duration,
    /// From the decision to a replica that serves.
    pub(crate) start_up: Duration,
    /// It shrinks to no less than what was needed at any time this long ago or later.
    pub(crate) hold: Duration,
}

impl Scaling {
    /// Always this many.
    pub(crate) const fn fixed(replicas: usize) -> Self {
        Self {
            replicas: replicas..=replicas,
            target: 0.7,
            interval: Duration::from_secs(5),
            start_up: Duration::from_secs(10),
            hold: Duration::from_secs(60),
        }
    }
}

/// What every replica is like, and how many there are.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) config: Config,
    pub(crate) device: Device,
    /// How many requests each tenant may have queued on one replica.
    pub(crate) quota: NonZeroU32,
    pub(crate) scaling: Scaling,
}

/// One replica.
pub(crate) struct Replica {
    pub(crate) stepper: Stepper<usize>,
    pub(crate) group: GroupId,
    /// By the tenant's number.
    pub(crate) tenants: Vec<TenantId>,
    /// Whether its device executes nothing.
    pub(crate) idle: bool,
    /// When its scheduler asked to be asked again.
    pub(crate) asked_for: Option<Instant>,
    /// When it takes requests, from the start of the simulation. None once it is to go: it finishes what it has.
    serves_from: Option<Duration>,
}

pub(crate) struct Fleet {
    pub(crate) replicas: Vec<Replica>,
    setting: Setting,
    start: Instant,
    /// Requests that came since the autoscaler last looked.
    offered: u64,
    /// What each look found to be needed, with its time.
    needed: VecDeque<(Duration, usize)>,
}

impl Fleet {
    /// A fleet of the least size.
    pub(crate) fn new(setting: Setting, start: Instant) -> Self {
        let least = *setting.scaling.replicas.start();
        let mut fleet = Self { replicas: Vec::new(), setting, start, offered: 0, needed: VecDeque::new() };
        for _ in 0..least {
            fleet.add(Duration::ZERO);
        }
        fleet
    }

    fn add(&mut self, serves_from: Duration) {
        let Setting { config, device, .. } = self.setting;
        let mut stepper = Stepper::new(config, NonZeroUsize::MIN, self.start + serves_from);
        let max_batch = NonZeroUsize::new(device.max_batch).expect("a batch holds a row");
        let group = stepper.add_group(GroupConfig::up_to(max_batch));
        let serves_from = Some(serves_from);
        self.replicas.push(Replica { stepper, group, tenants: Vec::new(), idle: true, asked_for: None, serves_from });
    }

    /// The replica that the next request goes to: of two random ones the one with the shorter queue (Mitzenmacher,
    /// 2001, "The power of two choices in randomized load balancing").
    pub(crate) fn route(&mut self, now: Duration, rng: &mut Xoshiro256PlusPlus) -> usize {
        self.offered += 1;
        let serving: Vec<_> = (0..self.replicas.len())
            .filter(|&number| self.replicas[number].serves_from.is_some_and(|from| from <= now))
            .collect();
        let pick = |rng: &mut Xoshiro256PlusPlus| serving[rng.random_range(0..serving.len())];
        let (one, other) = (pick(rng), pick(rng));
        let queued = |number: usize| self.replicas[number].stepper.depth().iter().sum::<usize>();
        if queued(other) < queued(one) { other } else { one }
    }

    /// How many replicas serve, or are to.
    pub(crate) fn size(&self) -> usize {
        self.replicas.iter().filter(|replica| replica.serves_from.is_some()).count()
    }

    /// The autoscaler looks; returns when it looks next.
    pub(crate) fn scale(&mut self, now: Duration) -> Duration {
        let Scaling { replicas, target, interval, start_up, hold } = self.setting.scaling.clone();
        let load = self.offered as f64 / interval.as_secs_f64() / self.setting.device.ceiling();
        self.offered = 0;
        let needed = ((load / target).ceil() as usize).clamp(*replicas.start(), *replicas.end());
        self.needed.push_back((now, needed));
        while self.needed.front().is_some_and(|&(then, _)| then + hold < now) {
            self.needed.pop_front();
        }
        let wanted = self.needed.iter().map(|&(_, needed)| needed).max().unwrap_or(needed);
        for _ in self.size()..wanted {
            self.add(now + start_up);
        }
        let leaving = self.size().saturating_sub(wanted);
        for replica in self.replicas.iter_mut().rev().filter(|replica| replica.serves_from.is_some()).take(leaving) {
            replica.serves_from = None;
        }
        now + interval
    }
}

impl Replica {
    /// A request of the arrival's, under `number`.
    pub(crate) fn request(
        &mut self,
        arrival: &Arrival,
        number: usize,
        start: Instant,
        quota: NonZeroU32,
    ) -> Request<usize> {
        while self.tenants.len() <= arrival.tenant {
            self.tenants.push(self.stepper.add_tenant(quota));
        }
        Request::new(self.group, number)
            .priority(arrival.lane)
            .tenant(self.tenants[arrival.tenant])
            .deadline(start + arrival.at + arrival.deadline)
    }
}
