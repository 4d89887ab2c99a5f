//! The queue against a list that is searched anew for everything.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};

use proptest::prelude::*;

use super::*;
use crate::admission::Reason;
use crate::core::Core;
use crate::entry::Ticketed;
use crate::service_time::ServiceTime;
use crate::sync::{Arc, Parker};
use crate::{Config, GroupConfig, Policy, Priority, Request, TenantId, Ticket};

const AGING: Duration = Duration::from_millis(10);
const MAX_ROWS: [usize; 3] = [1, 4, 24];
/// The last group closes at less than it could hold.
const FULL_ROWS: [usize; 3] = [1, 4, 10];
/// How much each tenant may have queued.
const QUOTAS: [u32; 3] = [u32::MAX, 20, 4];
/// What a batch costs in these tests, once it is learned: 1 ms, and half of one a row.
const FIXED: Duration = Duration::from_millis(1);
const PER_ROW: Duration = Duration::from_micros(500);

#[derive(Debug, Clone)]
enum Step {
    Submit { lane: usize, group: usize, tenant: Option<usize>, rows: usize, due_in: Option<Duration> },
    Withdraw(prop::sample::Index),
    Pass(Duration),
    Batch,
    Learn,
}

/// What may happen, on behalf of nobody and of the first `tenants` tenants.
///
/// The queue notices late what was withdrawn, and until then counts its rows; so withdrawals and costs that depend on
/// what waits go separately.
fn step(tenants: usize, withdraw: u32, learn: u32) -> impl Strategy<Value = Step> {
    let due_in = prop::option::of((100_u64..40_000).prop_map(Duration::from_micros));
    let submit =
        (0_usize..4, 0_usize..3, 0..=tenants, 1_usize..25, due_in).prop_map(|(lane, group, tenant, rows, due_in)| {
            Step::Submit { lane, group, tenant: tenant.checked_sub(1), rows: rows.min(MAX_ROWS[group]), due_in }
        });
    prop_oneof![
        10 + 5 * tenants as u32 => submit,
        withdraw => any::<prop::sample::Index>().prop_map(Step::Withdraw),
        3 => (1_u64..20_000).prop_map(|micros| Step::Pass(Duration::from_micros(micros))),
        3 => Just(Step::Batch),
        learn => Just(Step::Learn),
    ]
}

/// Any sequence of it, alone or with tenants.
fn steps(withdraw: u32, learn: u32) -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![
        prop::collection::vec(step(0, withdraw, learn), 1..150),
        prop::collection::vec(step(QUOTAS.len(), withdraw, learn), 1..150),
    ]
}

/// A request as the oracle sees it.
#[derive(Debug)]
struct Known {
    id: usize,
    group: usize,
    lane: usize,
    tenant: Option<usize>,
    rows: usize,
    submitted: Instant,
    deadline: Option<Instant>,
    ticket: Ticket<()>,
}

impl Known {
    /// The effective priority, as the documentation has it: a lane less for each interval, and 0 for the overdue.
    fn level(&self, now: Instant) -> usize {
        let intervals = (now - self.submitted).as_micros() as usize / AGING.as_micros() as usize;
        (self.lane + 1).saturating_sub(intervals)
    }

    fn due(&self) -> Due {
        self.deadline.map_or(Due::Never, Due::By)
    }

    fn is_raised(&self, now: Instant) -> bool {
        self.level(now) < self.lane + 1
    }

    /// When it goes: by level, and on each level the raised first; or all that was not raised first.
    fn class(&self, now: Instant, raised_first: bool) -> (bool, usize, bool) {
        let raised = self.is_raised(now);
        (raised && !raised_first, self.level(now), !raised)
    }

    fn order(&self, now: Instant) -> (Due, Instant) {
        (if self.level(now) == 0 { Due::Never } else { self.due() }, self.submitted)
    }
}

/// A deadline, where no deadline comes after every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    By(Instant),
    Never,
}

/// Where a request waits: in its group, at its level, because it was raised there or not.
type Place = (usize, usize, bool);

/// Tenants' turns, as the documentation has them: a tenant has a round, in which it is given an eighth of a full batch.
#[derive(Debug, Default)]
struct Rounds {
    /// Each tenant's round, and the rows it was given in it.
    tenants: BTreeMap<Option<usize>, (u64, usize)>,
    /// The round from which the latest batch was begun, or eight before the latest that anybody is in: who had nothing
    /// waiting goes on from here.
    current: u64,
}

impl Rounds {
    fn of(&self, tenant: Option<usize>) -> u64 {
        self.tenants.get(&tenant).map_or(0, |&(round, _)| round).max(self.current)
    }

    fn give(&mut self, tenant: Option<usize>, rows: usize, group: usize, begins: bool) {
        let round = self.of(tenant);
        if begins {
            self.current = round;
        }
        let given = self.tenants.get(&tenant).filter(|(last, _)| *last == round).map_or(0, |&(_, given)| given);
        let (mut round, mut given) = (round, given + rows);
        let turn = FULL_ROWS[group].div_ceil(8);
        while given >= turn {
            given -= turn;
            round += 1;
        }
        self.tenants.insert(tenant, (round, given));
        self.current = self.current.max(round.saturating_sub(8));
    }
}

struct World {
    now: Instant,
    core: Arc<Core>,
    queue: Queue<Ticketed<usize, ()>>,
    known: Vec<Known>,
    next: usize,
    /// How many rows went that had not been raised, less those that had, within the largest batch.
    balance: i64,
    rounds: Rounds,
    /// What the queue was taught, by itself: its own tests say what it makes of it.
    learned: [ServiceTime; 3],
}

impl World {
    fn new() -> Self {
        let capacity = NonZeroUsize::new(1 << 20).expect("positive");
        let now = Instant::now();
        Self {
            now,
            core: Arc::new(Core::new(capacity, 1, Box::new([Parker::new().unparker().clone()]))),
            queue: Queue::new(AGING, 1, now),
            known: Vec::new(),
            next: 0,
            balance: 0,
            rounds: Rounds::default(),
            learned: [ServiceTime::default(); 3],
        }
    }

    fn group(index: usize) -> GroupId {
        let [max, full] = [MAX_ROWS[index], FULL_ROWS[index]].map(|rows| NonZeroUsize::new(rows).expect("positive"));
        GroupId::new(index as u32, &GroupConfig::up_to(max).full_at(full))
    }

    /// Submits, and checks that the request is let in if and only if its tenant's quota lets it.
    fn submit(
        &mut self,
        lane: usize,
        group: usize,
        tenant: Option<usize>,
        rows: usize,
        due_in: Option<Duration>,
    ) -> Result<(), TestCaseError> {
        let (id, priority) = (self.next, Priority::ALL[lane]);
        self.next += 1;
        let rows_of = NonZeroUsize::new(rows).expect("positive");
        let mut request = Request::new(Self::group(group), id).priority(priority).rows(rows_of);
        let deadline = due_in.map(|due_in| self.now + due_in);
        request.deadline = deadline;
        request.tenant = tenant.map(|tenant| {
            TenantId::new(tenant as u32, NonZeroU32::new(QUOTAS[tenant]).expect("a tenant may queue something"))
        });
        let queued = self.known.iter().filter(|known| known.tenant == tenant).count();
        if tenant.is_some_and(|tenant| queued >= QUOTAS[tenant] as usize) {
            let refusal = self.core.admission.enter(self.now, &request);
            prop_assert!(matches!(refusal, Err(Reason::QuotaExceeded)), "one more than the quota was let in");
            return Ok(());
        }
        prop_assert!(self.core.admission.enter(self.now, &request).is_ok(), "{queued} of the tenant's are queued");
        let (caller, entry) = Entry::ticketed(request, self.now);
        self.queue.insert(entry);
        let submitted = self.now;
        let ticket = Ticket::new(caller, Arc::clone(&self.core));
        self.known.push(Known { id, group, lane, tenant, rows, submitted, deadline, ticket });
        Ok(())
    }

    /// What a batch of `rows` that starts now is expected to be done by.
    fn finish(&self, group: usize, rows: usize) -> Instant {
        self.now + self.learned[group].bound(rows, self.now)
    }

    /// The batch in which a request has to be in time: see `GroupQueue::company`.
    fn company(&self, known: &Known, gone: &BTreeSet<usize>) -> usize {
        let (full, level) = (FULL_ROWS[known.group], known.level(self.now));
        let mut before = BTreeMap::from([(known.tenant, 0)]);
        for other in &self.known {
            let is_before = other.group == known.group && other.level(self.now) <= level;
            if is_before && !gone.contains(&other.id) {
                *before.entry(other.tenant).or_default() += other.rows;
            }
        }
        let own = before[&known.tenant];
        let most = own + full.div_ceil(8);
        let waiting: usize = before.values().map(|&rows| rows.min(most)).sum();
        known.rows.max(waiting.saturating_sub(full).min(full))
    }

    /// Whether the request cannot be done by its deadline, when those that are `gone` no longer wait.
    fn is_hopeless(&self, known: &Known, gone: &BTreeSet<usize>) -> bool {
        let rows = self.company(known, gone);
        known.deadline.is_some_and(|due| due <= self.now || due < self.finish(known.group, rows))
    }

    fn place(&self, known: &Known) -> Place {
        (known.group, known.level(self.now), known.is_raised(self.now))
    }

    fn learn(&mut self) {
        for (group, max_rows) in MAX_ROWS.into_iter().enumerate() {
            // The two ends of the line, so that the fit is the line.
            for rows in [1, max_rows.max(2)] {
                let took = FIXED + PER_ROW * rows as u32;
                self.queue.group(Self::group(group)).learn(rows, took, self.now);
                self.learned[group].observe(rows, took, self.now);
            }
        }
    }

    /// Whom the queue must refuse now whatever the tenants: on each shelf, from the first due on, while they are hopeless.
    fn hopeless(&self) -> BTreeSet<usize> {
        let mut hopeless = BTreeSet::new();
        let mut refuse_while_hopeless = |those: &[&Known]| {
            for known in those {
                if !self.is_hopeless(known, &hopeless) {
                    break;
                }
                hopeless.insert(known.id);
            }
            hopeless.clone()
        };
        for group in 0..3 {
            // The raised by level, then the others.
            let mut shelves = BTreeMap::<_, Vec<_>>::new();
            for known in self.known.iter().filter(|known| known.group == group) {
                shelves.entry((!known.is_raised(self.now), known.level(self.now))).or_default().push(known);
            }
            for those in shelves.values_mut() {
                those.sort_by_key(|known| (known.due(), known.submitted));
                refuse_while_hopeless(those);
            }
            let mut overdue = shelves.remove(&(false, 0)).unwrap_or_default();
            overdue.sort_by_key(|known| known.submitted);
            let gone = refuse_while_hopeless(&[]);
            overdue.retain(|known| !gone.contains(&known.id));
            refuse_while_hopeless(&overdue);
        }
        hopeless
    }

    /// Beside those, the queue refuses what is hopeless and due first of its tenant's on its shelf. In which order it
    /// looks at the tenants is its own affair, though whoever is refused makes room for others: so nobody may be refused
    /// that had hope before, and nobody be kept that has none afterwards.
    fn check_refused(&self, refused: &BTreeSet<usize>) -> Result<(), TestCaseError> {
        let hopeless = self.hopeless();
        prop_assert!(hopeless.is_subset(refused), "{:?} are hopeless, {:?} were refused", hopeless, refused);
        let mut shelves = BTreeMap::<_, Vec<_>>::new();
        for known in self.known.iter().filter(|known| !hopeless.contains(&known.id)) {
            shelves.entry((self.place(known), known.tenant)).or_default().push(known);
        }
        for (((_, level, _), _), shelf) in &mut shelves {
            shelf.sort_by_key(|known| (known.due(), known.submitted));
            let (gone, kept) = shelf.split_at(shelf.partition_point(|known| refused.contains(&known.id)));
            for known in gone {
                prop_assert!(*level > 0 && self.is_hopeless(known, &hopeless), "{:?} was refused", known);
            }
            for (i, known) in kept.iter().enumerate() {
                prop_assert!(!refused.contains(&known.id), "{:?} was refused before one that is due earlier", known);
                let has_hope = i > 0 || *level == 0 || !self.is_hopeless(known, refused);
                prop_assert!(has_hope, "{:?} was not refused", known);
            }
        }
        Ok(())
    }

    /// Who goes next, in order.
    fn batch(&mut self) -> Vec<usize> {
        let raised_first = self.balance >= 0;
        let rank = |known: &Known| (known.class(self.now, raised_first), known.order(self.now));
        let first = self.known.iter().min_by_key(|known| (self.rounds.of(known.tenant), rank(known)));
        let Some(group) = first.map(|first| first.group) else { return Vec::new() };
        let (mut batch, mut rows, mut raised_rows, mut tightest) = (Vec::new(), 0, 0, Due::Never);
        // The raised go first, up to half of the batch; then the others; then the raised again.
        for pass in if raised_first { vec![true, false] } else { vec![false] } {
            let is_left = |known: &&Known| known.group == group && !batch.contains(&known.id);
            let left = self.known.iter().filter(is_left);
            let mut left: Vec<_> =
                left.map(|known| (known.class(self.now, pass), known.order(self.now), known)).collect();
            left.sort_by_key(|&(class, order, _)| (class, order));
            while let Some(next) =
                (0..left.len()).min_by_key(|&next| (self.rounds.of(left[next].2.tenant), left[next].0, left[next].1))
            {
                let (class, _, known) = left[next];
                let tightest_with = tightest.min(known.due());
                let late = !batch.is_empty() && Due::By(self.finish(group, rows + known.rows)) > tightest_with;
                let limit = if batch.is_empty() { MAX_ROWS[group] } else { FULL_ROWS[group] };
                let is_raised = known.is_raised(self.now);
                let half = FULL_ROWS[group].div_ceil(2);
                let too_raised = pass && is_raised && !batch.is_empty() && raised_rows + known.rows > half;
                if rows + known.rows > limit || late || too_raised {
                    // Nobody of the tenant's may overtake it there.
                    left.retain(|other| (other.0, other.2.tenant) != (class, known.tenant));
                    continue;
                }
                left.remove(next);
                self.rounds.give(known.tenant, known.rows, group, batch.is_empty());
                batch.push(known.id);
                rows += known.rows;
                raised_rows += if is_raised { known.rows } else { 0 };
                tightest = tightest_with;
            }
        }
        let max_rows = MAX_ROWS[group] as i64;
        self.balance = (self.balance + rows as i64 - 2 * raised_rows as i64).clamp(-max_rows, max_rows);
        batch
    }

    /// Takes a batch from the queue, as a leader does, and checks it against the list.
    fn check_batch(&mut self) -> Result<(), TestCaseError> {
        let config = Config { policy: Policy::Eager, ..Config::default() };
        let mut removed = Removed::new();
        let mut batch = Vec::new();
        let live = self.core.admission.gate.depth().iter().sum();
        prop_assert_eq!(live, self.known.len());
        let decision = self.queue.plan(self.now, &Circumstances::new(&config, false, false), live, &mut removed);
        if let Decision::Close(group) = decision {
            self.queue.take(group, 0, self.now, &mut batch, &mut removed);
        }
        prop_assert!(self.queue.len() <= 2 * live + SLACK, "withdrawn requests pile up");
        let listed: BTreeSet<_> = self.queue.occupied.iter().collect();
        prop_assert_eq!(listed.len(), self.queue.occupied.len(), "a group is listed twice");

        let refused: BTreeSet<_> = removed.hopeless.iter().map(|item| item.content.payload).collect();
        self.check_refused(&refused)?;
        self.known.retain(|known| !refused.contains(&known.id));

        let taken: Vec<_> = batch.iter().map(|item| item.content.payload).collect();
        prop_assert_eq!(&taken, &self.batch());
        for item in removed.hopeless.iter().chain(&batch) {
            self.core.release(item.lane, item.tenant);
        }
        for item in &batch {
            let level =
                self.known.iter().find(|known| known.id == item.content.payload).map(|known| known.level(self.now));
            let lane = level.map(|level| level.saturating_sub(1));
            prop_assert_eq!(Some(item.priority.lane()), lane);
        }
        self.known.retain(|known| !taken.contains(&known.id));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_takes_refuses_and_orders_as_a_plain_list_would(steps in prop_oneof![steps(2, 0), steps(0, 1)]) {
        let mut world = World::new();
        for step in steps {
            // Submissions are told apart by their time.
            world.now += Duration::from_nanos(1);
            match step {
                Step::Submit { lane, group, tenant, rows, due_in } => world.submit(lane, group, tenant, rows, due_in)?,
                Step::Withdraw(index) if !world.known.is_empty() => {
                    let known = world.known.swap_remove(index.index(world.known.len()));
                    prop_assert!(known.ticket.withdraw().is_ok());
                }
                Step::Withdraw(_) => {}
                Step::Pass(time) => world.now += time,
                Step::Batch => world.check_batch()?,
                Step::Learn => world.learn(),
            }
        }
        while !world.known.is_empty() {
            world.now += Duration::from_nanos(1);
            world.check_batch()?;
        }
    }

    #[test]
    fn a_request_goes_once_it_is_overdue_however_much_is_more_urgent(lane in 0_usize..4, load in 1_usize..4) {
        let mut world = World::new();
        let started = world.now;
        world.submit(lane, 0, None, 1, None)?;
        let overdue = started + AGING * (lane as u32 + 1);
        while !world.known.is_empty() && world.known[0].id == 0 {
            prop_assert!(world.now <= overdue, "it was overdue for {:?}", world.now - overdue);
            // One row a millisecond is served, and at least as much of the highest lane arrives, due before it.
            for _ in 0..load {
                world.now += Duration::from_nanos(1);
                world.submit(0, 0, None, 1, Some(AGING * 100))?;
            }
            world.now = started + Duration::from_millis((world.now - started).as_millis() as u64 + 1);
            world.check_batch()?;
        }
    }
}

#[test]
fn a_thousand_withdrawn_requests_do_not_linger() {
    let mut world = World::new();
    for i in 0..=1_000 {
        world.now += Duration::from_nanos(1);
        let lane = if i == 0 { 0 } else { 3 };
        world.submit(lane, 0, None, 1, None).expect("nobody has a quota");
    }
    world.known.truncate(1);
    let mut removed = Removed::new();
    let never = Circumstances { max_wait: AGING, policy: Policy::Deferred, others_idle: false, draining: false };
    world.queue.plan(world.now, &never, 1, &mut removed);
    assert_eq!((removed.withdrawn.len(), world.queue.len()), (1_000, 1));
}

#[test]
fn while_every_worker_executes_the_costliest_group_decides_which_deadlines_are_watched_for() {
    fn margin(world: &mut World) -> Option<Duration> {
        let Watch { until, due_before } = world.queue.watch(world.now);
        Some(due_before? - until?)
    }
    let mut world = World::new();
    world.submit(0, 0, None, 1, Some(AGING)).expect("nobody has a quota");
    assert_eq!(margin(&mut world), Some(Duration::ZERO), "nothing is known of any group");
    // Learned after the groups were last looked through, it counts all the same.
    let seen = Observation { group: World::group(0), rows: 1, took: FIXED, done: world.now };
    world.queue.learn(seen);
    world.learned[0].observe(seen.rows, seen.took, seen.done);
    assert_eq!(margin(&mut world), Some(world.learned[0].bound(1, world.now)));
    world.now += Duration::from_secs(2);
    assert_eq!(margin(&mut world), Some(Duration::ZERO), "what was learned is old");
}
