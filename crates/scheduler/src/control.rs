//! Who leads, who sleeps, and who must be woken.
//!
//! Of the workers that are not executing, one leads: it forms the next batch. The others follow: they sleep until
//! the leader, leaving to execute its batch, hands leadership on. One word says all that a submitter must know:
//!
//! | mode | meaning | a submitter wakes |
//! |---|---|---|
//! | vacant | every worker executes and no timekeeper runs; the first to finish leads | nobody |
//! | awake | the worker named looks for arrivals before it rests | nobody |
//! | dozing | the worker named rests until a time, or until what it waits for has come | it, if the request cannot wait |
//! | asleep | the worker named rests until anything arrives | it |
//!
//! While every worker executes, the [timekeeper](crate::Timekeeper) leads, if one runs: it dozes until a deadline may
//! have become infeasible, and only a request with an earlier deadline wakes it. It never executes, and a worker that
//! has nothing to execute takes leadership from it at any time; what both touch lies behind a lock of its own.
//!
//! Submitters set an arrival bit and read the mode in one step, and a leader rests by one compare-and-swap that
//! fails if an arrival bit is set. Both act on the same word, so one of the two sees the other: no wake-up is lost.

use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering, Parker, Unparker, fence};
use crate::{GroupId, Priority};

/// One arrival bit per lane, one that says "look again" for any other reason (closing, the last withdrawal), and one
/// that says that an arrival has a deadline.
const ARRIVALS: usize = 0b1_0001_1111;
const NUDGE: usize = 0b1_0000;
const MODE: usize = 0b110_0000;
const VACANT: usize = 0;
const AWAKE: usize = 0b010_0000;
const DOZING: usize = 0b100_0000;
const ASLEEP: usize = 0b110_0000;
/// No worker will ever lead again.
const ENDED: usize = 0b1000_0000;
const DUE: usize = 0b1_0000_0000;
const WORKER_SHIFT: u32 = 9;
/// In place of a group: what waits is of no interest but for its deadline.
const DEADLINES_ONLY: u32 = u32::MAX - 1;
/// How soon the timekeeper looks at arrivals whose deadlines nobody has seen yet.
const GLANCE: Duration = Duration::from_millis(3);

#[derive(Debug)]
pub(crate) struct Control {
    /// Arrival bits, mode, end, and the number of the worker that the mode is about.
    ///
    /// Arrival bits are set by submitters after their push (Release) and cleared by the leader before it looks into
    /// the rings (Acquire), so that it finds the push that set the bit. The mode is written by the leader and by the
    /// submitter that wakes it; steps to and from vacant, and from one worker to another, are made under `idle`'s lock.
    word: CachePadded<AtomicUsize>,
    /// What a dozing leader waits for; valid while the mode is dozing.
    terms: PublishedTerms,
    /// Who rests. Workers lock it between batches, submitters never.
    idle: Mutex<Idle>,
    /// The workers', and last the timekeeper's.
    unparkers: Box<[Unparker]>,
    epoch: Instant,
}

#[derive(Debug)]
struct Idle {
    followers: Vec<usize>,
    alarm: Alarm,
}

/// When the timekeeper will wake by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alarm {
    /// None runs.
    Absent,
    Never,
    At(Instant),
}

/// When the timekeeper must look at the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watch {
    /// When something in the queue may become hopeless; none if nothing there has a deadline.
    pub(crate) until: Option<Instant>,
    /// A request due before this may become hopeless before `until`; none if any may.
    pub(crate) due_before: Option<Instant>,
}

impl Watch {
    /// Until a request with a deadline comes.
    pub(crate) const ANY: Self = Self { until: None, due_before: None };
}

/// What a dozing leader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// When to wake in any case.
    pub(crate) until: Instant,
    /// The group that waits, and how many more rows would fill its batch. None if several do: then any arrival wakes.
    pub(crate) group: Option<(GroupId, usize)>,
    /// A request due before this might have to start before `until`.
    pub(crate) due_before: Instant,
}

/// [`Terms`] where submitters can read them. Written by the leader before the word says dozing (whose Release
/// publishes them), read by submitters after they saw it say so. One that reads them late, when another doze has
/// begun, may wake the leader for nothing or count its rows twice; the leader then decides again, no worse.
#[derive(Debug)]
struct PublishedTerms {
    /// The group's number, [`DEADLINES_ONLY`], or `u32::MAX` for none.
    group: AtomicU32,
    /// Counted down by submitters.
    rows_wanted: AtomicI64,
    /// Nanoseconds since `epoch`.
    due_before: AtomicU64,
}

/// What a worker is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Lead,
    Follow,
    End,
}

impl Control {
    pub(crate) fn new(unparkers: Box<[Unparker]>, epoch: Instant) -> Self {
        Self {
            word: CachePadded::new(AtomicUsize::new(VACANT)),
            terms: PublishedTerms {
                group: AtomicU32::new(u32::MAX),
                rows_wanted: AtomicI64::new(0),
                due_before: AtomicU64::new(0),
            },
            idle: Mutex::new(Idle { followers: Vec::with_capacity(unparkers.len()), alarm: Alarm::Absent }),
            unparkers,
            epoch,
        }
    }

    /// A submitter says that it pushed into `lane`; wakes the leader if it must. False if no worker is left to hear it.
    #[must_use]
    pub(crate) fn announce(&self, lane: Priority, group: GroupId, rows: usize, deadline: Option<Instant>) -> bool {
        let due = if deadline.is_some() { DUE } else { 0 };
        let news = 1 << lane.lane() | due;
        // Between the push and this look, as between the leader's taking of the bits and its look into the rings: one of
        // the two sees what the other did. What was said already is not written again: every submitter and the leader
        // share the word.
        fence(Ordering::SeqCst);
        let seen = self.word.load(Ordering::Acquire);
        let before = if seen & news == news { seen } else { self.word.fetch_or(news, Ordering::AcqRel) };
        match before & MODE {
            ASLEEP => self.wake(),
            DOZING if self.cannot_wait(group, rows, deadline) => self.wake(),
            _ => {}
        }
        before & ENDED == 0
    }

    /// Has the leader look again, now or before it next rests.
    pub(crate) fn nudge(&self) {
        let before = self.word.fetch_or(NUDGE, Ordering::AcqRel);
        if matches!(before & MODE, ASLEEP | DOZING) {
            self.wake();
        }
    }

    /// Whether anything arrived since the leader last looked.
    pub(crate) fn has_arrivals(&self) -> bool {
        self.word.load(Ordering::Relaxed) & ARRIVALS != 0
    }

    /// The leader takes note of what arrived: one bit per lane.
    pub(crate) fn take_arrivals(&self) -> usize {
        let arrivals = self.word.fetch_and(!ARRIVALS, Ordering::AcqRel) & ARRIVALS;
        fence(Ordering::SeqCst);
        arrivals
    }

    /// The timekeeper takes note of what arrived; none if a worker took leadership from it meanwhile: then the arrivals
    /// are the worker's, who may be about to rest and would not hear of them again.
    pub(crate) fn take_arrivals_to_watch(&self) -> Option<usize> {
        let taken = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |seen| {
            (seen & MODE == AWAKE && seen >> WORKER_SHIFT == self.timekeeper()).then_some(seen & !ARRIVALS)
        });
        fence(Ordering::SeqCst);
        taken.ok().map(|seen| seen & ARRIVALS)
    }

    /// Whether another worker rests beside the leader.
    pub(crate) fn has_followers(&self) -> bool {
        !self.idle.lock().followers.is_empty()
    }

    /// A worker that has nothing to execute asks for its role.
    pub(crate) fn join(&self, me: usize) -> Role {
        let mut idle = self.idle.lock();
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            if seen & ENDED != 0 {
                return Role::End;
            }
            if seen & MODE != VACANT && seen >> WORKER_SHIFT != self.timekeeper() {
                // Nobody can vacate the leadership without the lock, so it will be handed to a follower.
                idle.followers.push(me);
                return Role::Follow;
            }
            match self.replace(seen, AWAKE, me) {
                Ok(()) => return Role::Lead,
                Err(now) => seen = now,
            }
        }
    }

    /// A follower rests until it is made leader, or the end.
    pub(crate) fn follow(&self, me: usize, parker: &Parker) -> Role {
        loop {
            let seen = self.word.load(Ordering::Acquire);
            if seen & ENDED != 0 {
                return Role::End;
            }
            if seen & MODE == AWAKE && seen >> WORKER_SHIFT == me {
                return Role::Lead;
            }
            parker.park();
        }
    }

    /// The leader gives leadership up at `now`. Passes it to a follower, if there is one, and wakes it if
    /// `work_remains`; otherwise the next submit will wake it. Without followers the timekeeper gets it, to `watch`.
    pub(crate) fn leave(&self, work_remains: bool, watch: Watch, now: Instant) {
        let mut idle = self.idle.lock();
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            let heir = idle.followers.last().copied();
            let watch = match watch {
                _ if seen & DUE == 0 => watch,
                Watch { until: Some(until), .. } if until <= now + GLANCE => watch,
                Watch { due_before, .. } => Watch { until: Some(now + GLANCE), due_before },
            };
            let (mode, next) = match (heir, idle.alarm) {
                (Some(heir), _) if work_remains || seen & ARRIVALS != 0 => (AWAKE, heir),
                (Some(heir), _) => (ASLEEP, heir),
                (None, Alarm::Absent) => (VACANT, 0),
                (None, _) => {
                    self.publish_watch(watch);
                    (DOZING, self.timekeeper())
                }
            };
            if let Err(now) = self.replace(seen, mode, next) {
                seen = now;
                continue;
            }
            idle.followers.pop();
            let oversleeps = match (idle.alarm, watch.until) {
                (Alarm::Absent, _) | (_, None) => false,
                (Alarm::Never, Some(_)) => true,
                (Alarm::At(alarm), Some(until)) => until < alarm,
            };
            drop(idle);
            if mode == AWAKE || (mode == DOZING && oversleeps) {
                self.unparkers[next].unpark();
            }
            return;
        }
    }

    /// The timekeeper rests until it must look at the queue, which it then does as the leader. `watched` is what its
    /// last look told it to watch for, if it has looked. False at the end.
    #[must_use]
    pub(crate) fn watch(&self, parker: &Parker, mut watched: Option<Watch>) -> bool {
        loop {
            let alarm = match self.try_watch(watched.take()) {
                Ok(goes_on) => return goes_on,
                Err(alarm) => alarm,
            };
            match alarm {
                Some(alarm) => parker.park_deadline(alarm),
                None => parker.park(),
            }
        }
    }

    /// Leads (true), ends (false), or says when to try again.
    fn try_watch(&self, watched: Option<Watch>) -> Result<bool, Option<Instant>> {
        let me = self.timekeeper();
        let mut idle = self.idle.lock();
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            if seen & ENDED != 0 {
                idle.alarm = Alarm::Absent;
                return Ok(false);
            }
            let leads = seen >> WORKER_SHIFT == me && seen & MODE != VACANT;
            let (mode, alarm) = match watched {
                Some(watch) if leads && seen & ARRIVALS == 0 => {
                    self.publish_watch(watch);
                    (DOZING, watch.until)
                }
                _ if leads || seen & MODE == VACANT => (AWAKE, None),
                // A worker leads, and looks by itself unless it is about to leave.
                _ => {
                    let alarm = (seen & MODE == AWAKE).then(|| Instant::now() + GLANCE);
                    idle.alarm = alarm.map_or(Alarm::Never, Alarm::At);
                    return Err(alarm);
                }
            };
            match self.replace(seen, mode, me) {
                Ok(()) if mode == AWAKE => {
                    idle.alarm = Alarm::Never;
                    return Ok(true);
                }
                Ok(()) => {
                    idle.alarm = alarm.map_or(Alarm::Never, Alarm::At);
                    return Err(alarm);
                }
                Err(now) => seen = now,
            }
        }
    }

    /// The timekeeper is gone.
    pub(crate) fn retire(&self) {
        let mut idle = self.idle.lock();
        idle.alarm = Alarm::Absent;
        let mut seen = self.word.load(Ordering::Acquire);
        while seen & MODE != VACANT && seen >> WORKER_SHIFT == self.timekeeper() {
            match self.replace(seen, VACANT, 0) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// The timekeeper's number, after the workers'.
    const fn timekeeper(&self) -> usize {
        self.unparkers.len() - 1
    }

    fn publish_watch(&self, watch: Watch) {
        let due_before = watch.due_before.map_or(u64::MAX, |due_before| self.ticks(due_before));
        self.terms.group.store(DEADLINES_ONLY, Ordering::Relaxed);
        self.terms.due_before.store(due_before, Ordering::Relaxed);
    }

    /// The leader rests until anything arrives; at once if something has.
    pub(crate) fn sleep(&self, me: usize, parker: &Parker) {
        if self.rest(ASLEEP, me) {
            loop {
                parker.park();
                if self.word.load(Ordering::Acquire) & MODE == AWAKE {
                    return;
                }
            }
        }
    }

    /// The leader rests until `terms` are met; at once if something has arrived.
    pub(crate) fn doze(&self, me: usize, parker: &Parker, terms: Terms) {
        if !self.start_dozing(me, terms) {
            return;
        }
        parker.park_deadline(terms.until);
        let mut seen = self.word.load(Ordering::Acquire);
        while seen & MODE == DOZING {
            match self.replace(seen, AWAKE, me) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn start_dozing(&self, me: usize, terms: Terms) -> bool {
        let (group, rows) = terms.group.map_or((u32::MAX, 0), |(group, rows)| (group.number(), rows));
        self.terms.group.store(group, Ordering::Relaxed);
        self.terms.rows_wanted.store(i64::try_from(rows).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.terms.due_before.store(self.ticks(terms.due_before), Ordering::Relaxed);
        self.rest(DOZING, me)
    }

    /// No worker will lead again: every follower ends.
    pub(crate) fn end(&self) {
        let mut idle = self.idle.lock();
        self.word.fetch_or(ENDED, Ordering::AcqRel);
        for follower in idle.followers.drain(..) {
            self.unparkers[follower].unpark();
        }
        self.unparkers[self.timekeeper()].unpark();
    }

    /// Steps to `mode` unless something arrived meanwhile.
    fn rest(&self, mode: usize, me: usize) -> bool {
        let resting = mode | me << WORKER_SHIFT;
        let awake = AWAKE | me << WORKER_SHIFT;
        self.word.compare_exchange(awake, resting, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Wakes the resting leader, unless somebody else does.
    fn wake(&self) {
        let mut seen = self.word.load(Ordering::Acquire);
        while matches!(seen & MODE, ASLEEP | DOZING) {
            let leader = seen >> WORKER_SHIFT;
            match self.replace(seen, AWAKE, leader) {
                Ok(()) => return self.unparkers[leader].unpark(),
                Err(now) => seen = now,
            }
        }
    }

    /// Changes mode and worker, and nothing else, if the word is still as `seen`.
    fn replace(&self, seen: usize, mode: usize, worker: usize) -> Result<(), usize> {
        let next = seen & (ARRIVALS | ENDED) | mode | worker << WORKER_SHIFT;
        self.word.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }

    fn cannot_wait(&self, group: GroupId, rows: usize, deadline: Option<Instant>) -> bool {
        let awaited = self.terms.group.load(Ordering::Relaxed);
        let is_due = || deadline.is_some_and(|due| self.ticks(due) < self.terms.due_before.load(Ordering::Relaxed));
        if awaited == DEADLINES_ONLY {
            return is_due();
        }
        if group.number() != awaited {
            return true;
        }
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        if self.terms.rows_wanted.fetch_sub(rows, Ordering::Relaxed) <= rows {
            return true;
        }
        is_due()
    }

    fn ticks(&self, time: Instant) -> u64 {
        let since: Duration = time.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::GroupConfig;

    const SOON: Duration = Duration::from_secs(3_600);

    fn group(index: u32) -> GroupId {
        GroupId::new(index, &GroupConfig::up_to(NonZeroUsize::MIN))
    }

    /// A control whose worker 0 leads; the parkers keep the tokens of those that were woken.
    fn led(workers: usize) -> (Control, Vec<Parker>) {
        // The last is the timekeeper's.
        let parkers: Vec<_> = (0..=workers).map(|_| Parker::new()).collect();
        let unparkers = parkers.iter().map(|parker| parker.unparker().clone()).collect();
        let control = Control::new(unparkers, Instant::now());
        assert_eq!(control.join(0), Role::Lead);
        for worker in 1..workers {
            assert_eq!(control.join(worker), Role::Follow);
        }
        (control, parkers)
    }

    fn announce(control: &Control, of: GroupId, rows: usize, deadline: Option<Instant>) {
        assert!(control.announce(Priority::Normal, of, rows, deadline));
    }

    fn is_awake(control: &Control) -> bool {
        control.word.load(Ordering::Relaxed) & MODE == AWAKE
    }

    /// Worker 0 dozes for 3 rows of group 0, or until the time returned.
    fn dozing() -> (Control, Instant) {
        let (control, _) = led(1);
        let until = Instant::now() + SOON;
        assert!(control.start_dozing(0, Terms { until, group: Some((group(0), 3)), due_before: until }));
        assert!(!is_awake(&control));
        (control, until)
    }

    #[test]
    fn a_dozing_leader_is_woken_by_the_rows_that_fill_its_batch() {
        let (control, _) = dozing();
        announce(&control, group(0), 2, None);
        assert!(!is_awake(&control));
        announce(&control, group(0), 1, None);
        assert!(is_awake(&control));
    }

    #[test]
    fn a_dozing_leader_is_woken_by_a_deadline_that_cannot_wait() {
        let (control, until) = dozing();
        announce(&control, group(0), 1, Some(until + SOON));
        assert!(!is_awake(&control));
        announce(&control, group(0), 1, Some(until - SOON / 2));
        assert!(is_awake(&control));
    }

    #[test]
    fn a_dozing_leader_is_woken_by_another_group() {
        let (control, _) = dozing();
        announce(&control, group(1), 1, None);
        assert!(is_awake(&control));
    }

    #[test]
    fn a_leader_does_not_rest_over_an_arrival() {
        let (control, parkers) = led(1);
        announce(&control, group(0), 1, None);
        // Returns at once, or the test hangs.
        control.sleep(0, &parkers[0]);
        assert_eq!(control.take_arrivals(), 1 << Priority::Normal.lane());
        assert_eq!(control.take_arrivals(), 0);
    }

    #[test]
    fn leadership_goes_to_a_follower_awake_if_work_remains_and_asleep_otherwise() {
        for (work_remains, mode) in [(true, AWAKE), (false, ASLEEP)] {
            let (control, _parkers) = led(2);
            control.leave(work_remains, Watch::ANY, Instant::now());
            assert_eq!(control.word.load(Ordering::Relaxed), mode | 1 << WORKER_SHIFT);
            assert!(!control.has_followers());
        }
    }

    #[test]
    fn leadership_is_vacant_while_everybody_executes_and_the_first_to_finish_takes_it() {
        let (control, _parkers) = led(1);
        control.leave(true, Watch::ANY, Instant::now());
        announce(&control, group(0), 1, None);
        assert_eq!(control.word.load(Ordering::Relaxed) & MODE, VACANT);
        assert_eq!(control.join(0), Role::Lead);
        assert!(control.has_arrivals());
    }

    /// Worker 0 executes, and the timekeeper watches for what is due within the hour.
    fn watched() -> (Control, Instant) {
        let (control, _) = led(1);
        let now = Instant::now();
        assert_eq!(control.try_watch(None).map_err(|alarm| alarm.is_some()), Err(true));
        control.leave(false, Watch { until: Some(now + SOON), due_before: Some(now + SOON) }, now);
        assert!(!is_awake(&control));
        (control, now + SOON)
    }

    #[test]
    fn while_all_execute_the_timekeeper_is_woken_by_an_early_deadline_and_by_nothing_else() {
        let (control, until) = watched();
        announce(&control, group(0), 100, None);
        announce(&control, group(1), 1, Some(until + SOON));
        assert!(!is_awake(&control));
        announce(&control, group(1), 1, Some(until - SOON / 2));
        assert!(is_awake(&control));
        assert_eq!(control.try_watch(None), Ok(true));
    }

    #[test]
    fn a_worker_takes_leadership_from_the_timekeeper_asleep_or_awake() {
        let (control, until) = watched();
        assert_eq!(control.join(0), Role::Lead);
        control.leave(false, Watch::ANY, Instant::now());
        announce(&control, group(0), 1, Some(until));
        assert_eq!(control.try_watch(None), Ok(true));
        assert_eq!(control.join(0), Role::Lead);
        // What the timekeeper saw is of no interest any more.
        assert!(control.try_watch(Some(Watch::ANY)).is_err());
        assert_eq!(control.word.load(Ordering::Relaxed) >> WORKER_SHIFT, 0);
    }

    #[test]
    fn the_timekeeper_soon_looks_at_a_deadline_that_came_while_the_worker_left() {
        let (control, parkers) = led(1);
        assert!(control.rest(ASLEEP, 0));
        assert_eq!(control.try_watch(None), Err(None));
        announce(&control, group(0), 1, Some(Instant::now() + SOON));
        let now = Instant::now();
        control.leave(true, Watch::ANY, now);
        // It was woken to set its alarm, and the arrival has it look at once; or the test hangs.
        parkers[1].park();
        assert_eq!(control.try_watch(None), Ok(true));
    }

    #[test]
    fn without_a_timekeeper_leadership_is_vacant_again() {
        let (control, _) = watched();
        control.retire();
        assert_eq!(control.word.load(Ordering::Relaxed) & MODE, VACANT);
        assert_eq!(control.join(0), Role::Lead);
        control.leave(false, Watch::ANY, Instant::now());
        assert_eq!(control.word.load(Ordering::Relaxed) & MODE, VACANT);
    }

    #[test]
    fn after_the_end_nobody_leads_and_a_submitter_is_told() {
        let (control, parkers) = led(2);
        control.end();
        assert_eq!(control.follow(1, &parkers[1]), Role::End);
        assert_eq!(control.join(0), Role::End);
        assert!(!control.announce(Priority::Low, group(0), 1, None));
    }
}
