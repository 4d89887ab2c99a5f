//! Who leads, who sleeps, and who must be woken.
//!
//! Of the workers that are not executing, one leads: it forms the next batch. The others follow: they sleep until
//! the leader, leaving to execute its batch, hands leadership on. One word says all that a submitter must know:
//!
//! | mode | meaning | a submitter wakes |
//! |---|---|---|
//! | vacant | every worker executes; the first to finish leads | nobody |
//! | awake | the worker named looks for arrivals before it rests | nobody |
//! | dozing | the worker named rests until a time, or until what it waits for has come | it, if the request cannot wait |
//! | asleep | the worker named rests until anything arrives | it |
//!
//! Submitters set an arrival bit and read the mode in one step, and a leader rests by one compare-and-swap that
//! fails if an arrival bit is set. Both act on the same word, so one of the two sees the other: no wake-up is lost.

use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering, Parker, Unparker};
use crate::{GroupId, Priority};

/// One arrival bit per lane, and one that says "look again" for any other reason (closing, the last withdrawal).
const ARRIVALS: usize = 0b1_1111;
const NUDGE: usize = 0b1_0000;
const MODE: usize = 0b110_0000;
const VACANT: usize = 0;
const AWAKE: usize = 0b010_0000;
const DOZING: usize = 0b100_0000;
const ASLEEP: usize = 0b110_0000;
/// No worker will ever lead again.
const ENDED: usize = 0b1000_0000;
const WORKER_SHIFT: u32 = 8;

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
    /// The followers. Workers lock it between batches, submitters never.
    idle: Mutex<Vec<usize>>,
    unparkers: Box<[Unparker]>,
    epoch: Instant,
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
    /// The group's number, `u32::MAX` for none.
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
            idle: Mutex::new(Vec::with_capacity(unparkers.len())),
            unparkers,
            epoch,
        }
    }

    /// A submitter says that it pushed into `lane`; wakes the leader if it must. False if no worker is left to hear it.
    #[must_use]
    pub(crate) fn announce(&self, lane: Priority, group: GroupId, rows: usize, deadline: Option<Instant>) -> bool {
        let before = self.word.fetch_or(1 << lane.lane(), Ordering::AcqRel);
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
        self.word.fetch_and(!ARRIVALS, Ordering::AcqRel) & ARRIVALS
    }

    /// Whether another worker rests beside the leader.
    pub(crate) fn has_followers(&self) -> bool {
        !self.idle.lock().is_empty()
    }

    /// A worker that has nothing to execute asks for its role.
    pub(crate) fn join(&self, me: usize) -> Role {
        let mut idle = self.idle.lock();
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            if seen & ENDED != 0 {
                return Role::End;
            }
            if seen & MODE != VACANT {
                // Nobody can vacate the leadership without the lock, so it will be handed to a follower.
                idle.push(me);
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

    /// The leader gives leadership up. Passes it to a follower, if there is one, and wakes it if `work_remains`;
    /// otherwise the next submit will wake it.
    pub(crate) fn leave(&self, work_remains: bool) {
        let mut idle = self.idle.lock();
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            let (mode, heir) = match idle.last() {
                None => (VACANT, 0),
                Some(&heir) if work_remains || seen & ARRIVALS != 0 => (AWAKE, heir),
                Some(&heir) => (ASLEEP, heir),
            };
            match self.replace(seen, mode, heir) {
                Ok(()) => {
                    idle.pop();
                    drop(idle);
                    if mode == AWAKE {
                        self.unparkers[heir].unpark();
                    }
                    return;
                }
                Err(now) => seen = now,
            }
        }
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
        let (group, rows) =
            terms.group.map_or((u32::MAX, 0), |(group, rows)| (u32::try_from(group.index()).unwrap_or(u32::MAX), rows));
        self.terms.group.store(group, Ordering::Relaxed);
        self.terms.rows_wanted.store(i64::try_from(rows).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.terms.due_before.store(self.ticks(terms.due_before), Ordering::Relaxed);
        self.rest(DOZING, me)
    }

    /// No worker will lead again: every follower ends.
    pub(crate) fn end(&self) {
        let mut idle = self.idle.lock();
        self.word.fetch_or(ENDED, Ordering::AcqRel);
        for follower in idle.drain(..) {
            self.unparkers[follower].unpark();
        }
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
        if u32::try_from(group.index()) != Ok(awaited) {
            return true;
        }
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        if self.terms.rows_wanted.fetch_sub(rows, Ordering::Relaxed) <= rows {
            return true;
        }
        deadline.is_some_and(|deadline| self.ticks(deadline) < self.terms.due_before.load(Ordering::Relaxed))
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
        GroupId::new(index, GroupConfig::up_to(NonZeroUsize::MIN))
    }

    /// A control whose worker 0 leads; the parkers keep the tokens of those that were woken.
    fn led(workers: usize) -> (Control, Vec<Parker>) {
        let parkers: Vec<_> = (0..workers).map(|_| Parker::new()).collect();
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
            control.leave(work_remains);
            assert_eq!(control.word.load(Ordering::Relaxed), mode | 1 << WORKER_SHIFT);
            assert!(!control.has_followers());
        }
    }

    #[test]
    fn leadership_is_vacant_while_everybody_executes_and_the_first_to_finish_takes_it() {
        let (control, _parkers) = led(1);
        control.leave(true);
        announce(&control, group(0), 1, None);
        assert_eq!(control.word.load(Ordering::Relaxed) & MODE, VACANT);
        assert_eq!(control.join(0), Role::Lead);
        assert!(control.has_arrivals());
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
