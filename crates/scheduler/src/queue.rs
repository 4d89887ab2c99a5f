//! Everything that waits, in the leader's hands: the only place that both arrivals and decisions touch.

use std::time::{Duration, Instant};

use crate::entry::{Content, Entry, Item, Removed};
use crate::forecast::{Ahead, Forecast, Outlook, Prospect};
use crate::group_queue::GroupQueue;
use crate::offered::Offered;
use crate::policy::{Circumstances, Decision, Waiting, decide};
use crate::sizes::Sizes;
use crate::terms::Watch;
use crate::turns::{Turns, place};
use crate::{GroupId, Priority};

#[cfg(all(test, not(loom)))]
mod oracle;

/// How many withdrawn requests may linger, beside as many as there are live ones, before they are swept out.
const SLACK: usize = 64;

/// How often the costliest group is looked for among all of them.
const RECOUNT: Duration = Duration::from_millis(100);
/// Telling submitters what lies ahead takes up to a microsecond for each tenant in each group. Beyond this many it is
/// done less often, so that it takes a fifth of the time at the most; but this often in any case.
const PUBLISHED_FREELY: u32 = 64;
const PUBLISH_EACH: Duration = Duration::from_micros(5);
const LEAST_PUBLISHED: Duration = Duration::from_millis(50);

/// What waits, by group.
pub(crate) struct Queue<C> {
    aging_interval: Duration,
    epoch: Instant,
    /// When each worker's batch should be done.
    busy_until: Vec<Instant>,
    turns: Turns,
    offered: Offered,
    /// By tenant.
    with_deadline: Vec<WithDeadline>,
    /// The tenants of whom the forecast may have to change.
    unsettled: Vec<usize>,
    /// By the group's number; made when its first request comes.
    groups: Vec<Option<Box<GroupQueue<C>>>>,
    /// The numbers of groups that go once nothing of them waits.
    retired: Vec<usize>,
    /// The numbers of the groups in which something waits, or did when they were last tended; each once.
    occupied: Vec<usize>,
    /// Whether a group is in `occupied`, by its number.
    is_listed: Vec<bool>,
    /// What a batch of any group costs at most, or did within the last [`RECOUNT`]; and when that is next counted anew.
    costliest: Duration,
    recount_at: Instant,
    /// When submitters are next told what lies ahead of them, if nothing is to be told before.
    publish_at: Instant,
    /// Kept for its memory.
    waiting: Vec<Waiting>,
}

/// A tenant's requests with a deadline.
#[derive(Debug, Default, Clone, Copy)]
struct WithDeadline {
    /// How many came, by lane.
    came: [u64; Priority::COUNT],
    /// Whether some came, or waited, when the forecast was last published or since.
    is_unsettled: bool,
}

/// What executing a batch taught.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation {
    pub(crate) group: GroupId,
    pub(crate) rows: usize,
    pub(crate) took: Duration,
    pub(crate) done: Instant,
}

impl<C: Content> Queue<C> {
    pub(crate) fn new(aging_interval: Duration, workers: usize, epoch: Instant) -> Self {
        Self {
            aging_interval,
            epoch,
            busy_until: vec![epoch; workers],
            turns: Turns::default(),
            offered: Offered::new(epoch),
            with_deadline: Vec::new(),
            unsettled: Vec::new(),
            groups: Vec::new(),
            retired: Vec::new(),
            occupied: Vec::new(),
            is_listed: Vec::new(),
            costliest: Duration::ZERO,
            recount_at: epoch,
            publish_at: epoch,
            waiting: Vec::new(),
        }
    }

    /// The group's batches are executed as one of these sizes.
    pub(crate) fn restrict(&mut self, group: GroupId, sizes: Sizes) {
        self.group(group).restrict(sizes);
    }

    pub(crate) fn learn(&mut self, seen: Observation) {
        // It may have been removed since.
        if let Some(Some(group)) = self.groups.get_mut(seen.group.index()) {
            group.learn(seen.rows, seen.took, seen.done);
            self.costliest = self.costliest.max(group.largest_bound(seen.done));
        }
    }

    /// The group goes when it is next tended and nothing of it waits.
    pub(crate) fn retire(&mut self, group: GroupId) {
        self.retired.push(group.index());
    }

    fn remove_retired(&mut self) {
        let groups = &mut self.groups;
        self.retired.retain(|&index| match groups.get_mut(index) {
            Some(Some(group)) if group.len() > 0 => true,
            Some(place) => {
                *place = None;
                false
            }
            None => false,
        });
    }

    pub(crate) fn insert(&mut self, entry: Entry<C>) {
        let (index, tenant) = (entry.group.index(), place(entry.tenant));
        if entry.deadline.is_some() {
            self.count(tenant, entry.priority);
        }
        let group = self.group(entry.group);
        let (lane, nanos) = (entry.priority, group.nanos(entry.rows));
        group.insert(entry);
        // A batch that took all leaves the group listed until it is next tended.
        if !std::mem::replace(&mut self.is_listed[index], true) {
            self.occupied.push(index);
        }
        self.offered.add(tenant, lane, nanos);
    }

    fn count(&mut self, tenant: usize, lane: Priority) {
        if self.with_deadline.len() <= tenant {
            self.with_deadline.resize(tenant + 1, WithDeadline::default());
        }
        let with_deadline = &mut self.with_deadline[tenant];
        with_deadline.came[lane.lane()] += 1;
        if !std::mem::replace(&mut with_deadline.is_unsettled, true) {
            self.unsettled.push(tenant);
        }
    }

    /// [Tends](Self::tend), and decides.
    pub(crate) fn plan(
        &mut self,
        now: Instant,
        circumstances: &Circumstances,
        live: usize,
        removed: &mut Removed<C>,
    ) -> Decision {
        self.tend(now, live, removed);
        self.waiting.clear();
        let (groups, waiting, turns) = (&mut self.groups, &mut self.waiting, &self.turns);
        waiting.extend(self.occupied.iter().filter_map(|&index| groups[index].as_mut()?.summary(now, turns, removed)));
        let decision = decide(now, &self.waiting, circumstances);
        if let Decision::Wait(terms) = decision {
            for &index in &self.occupied {
                if let Some(group) = groups[index].as_mut() {
                    group.hold_back(terms.until);
                }
            }
        }
        decision
    }

    /// Ages, and takes out what is hopeless. `live` is how many requests are known not to be withdrawn.
    pub(crate) fn tend(&mut self, now: Instant, live: usize, removed: &mut Removed<C>) {
        let crowded = self.len() > 2 * live + SLACK;
        let (groups, is_listed) = (&mut self.groups, &mut self.is_listed);
        self.occupied.retain(|&index| {
            is_listed[index] = groups[index].as_mut().is_some_and(|group| {
                if crowded {
                    group.sweep(removed);
                }
                group.age(now);
                group.refuse(now, removed);
                group.len() > 0
            });
            is_listed[index]
        });
        self.remove_retired();
    }

    /// When, at the latest, something that waits will have become hopeless if nobody takes it; none without deadlines.
    pub(crate) fn next_hopeless(&mut self, now: Instant) -> Option<Instant> {
        let (groups, occupied) = (&mut self.groups, &self.occupied);
        occupied.iter().filter_map(|&index| groups[index].as_mut()?.next_hopeless(now)).min()
    }

    /// What to watch for while every worker executes. What comes meanwhile is unknown, so where deadlines are in use
    /// and none waits, it is soon looked at.
    pub(crate) fn watch(&mut self, now: Instant) -> Watch {
        let until = self.next_hopeless(now);
        if now >= self.recount_at {
            let bounds = self.groups.iter().flatten().map(|group| group.largest_bound(now));
            self.costliest = bounds.max().unwrap_or_default();
            self.recount_at = now + RECOUNT;
        }
        Watch { until, due_before: until.map(|until| until + self.costliest) }
    }

    /// Takes the group's next batch, which `worker` executes from now on. Gives back as how many rows that is executed.
    pub(crate) fn take(
        &mut self,
        group: GroupId,
        worker: usize,
        now: Instant,
        batch: &mut Vec<Item<C::Claimed>>,
        removed: &mut Removed<C>,
    ) -> usize {
        let Some(Some(queue)) = self.groups.get_mut(group.index()) else { return 0 };
        let rows = queue.take(now, &mut self.turns, batch, removed);
        let padded = queue.padded(rows);
        self.busy_until[worker] = now + queue.mean(padded);
        padded
    }

    /// Takes note that a worker executes nothing.
    pub(crate) fn vacate(&mut self, worker: usize) {
        self.busy_until[worker] = self.epoch;
    }

    /// When each worker's batch should be done.
    pub(crate) fn busy_until(&self) -> &[Instant] {
        &self.busy_until
    }

    /// Tells submitters what lies ahead of them.
    pub(crate) fn publish(&mut self, now: Instant, forecast: &Forecast) {
        if self.with_deadline.is_empty() || (now < self.publish_at && self.len() > 0) {
            return;
        }
        let pairs = u32::try_from(self.unsettled.len() * self.occupied.len()).unwrap_or(u32::MAX);
        self.publish_at = now + (PUBLISH_EACH * pairs.saturating_sub(PUBLISHED_FREELY)).min(LEAST_PUBLISHED);
        self.offered.update(now, self.busy_until.len());
        let (groups, offered, with_deadline) = (&self.groups, &self.offered, &mut self.with_deadline);
        let occupied = || self.occupied.iter().filter_map(|&index| groups[index].as_deref());
        let (mut nanos, mut len) = (0, 0);
        for group in occupied() {
            nanos += group.publish(now, forecast);
            len += group.len() as u64;
        }
        let free_at = self.busy_until.iter().copied().min().unwrap_or(now);
        let mut outlook = Outlook::new(now, free_at, occupied().map(GroupQueue::turn_nanos).max().unwrap_or_default());
        self.unsettled.retain(|&tenant| {
            let mut ahead = Ahead::new();
            let waits = occupied().filter(|group| group.add_to(tenant, &mut ahead)).count() > 0;
            with_deadline[tenant].is_unsettled = waits;
            let prospect = Prospect {
                ahead,
                share: offered.share(tenant),
                stretch: offered.stretch(tenant),
                per_request: nanos.checked_div(len),
                counted: with_deadline[tenant].came,
            };
            forecast.publish_tenant(tenant, &prospect, &mut outlook);
            waits
        });
        forecast.publish(&outlook);
    }

    /// How many requests are in order, the withdrawn that have not been noticed yet included.
    pub(crate) fn len(&self) -> usize {
        self.occupied.iter().filter_map(|&index| self.groups[index].as_ref()).map(|group| group.len()).sum()
    }

    /// How many groups take memory.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn groups(&self) -> usize {
        self.groups.iter().flatten().count()
    }

    /// Takes out everything.
    pub(crate) fn clear(&mut self) -> Vec<Entry<C>> {
        self.occupied.clear();
        self.is_listed.fill(false);
        self.groups.iter_mut().flatten().flat_map(|group| group.clear()).collect()
    }

    fn group(&mut self, id: GroupId) -> &mut GroupQueue<C> {
        let index = id.index();
        if self.groups.len() <= index {
            self.groups.resize_with(index + 1, || None);
            self.is_listed.resize(index + 1, false);
        }
        self.groups[index].get_or_insert_with(|| Box::new(GroupQueue::new(id, self.aging_interval, self.epoch)))
    }
}
