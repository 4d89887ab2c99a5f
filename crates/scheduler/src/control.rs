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
//! have become infeasible, but for a few milliseconds at least, in which most batches end and their worker looks itself;
//! and only a request with an earlier deadline wakes it. It never executes, and a worker that
//! has nothing to execute takes leadership from it at any time; what both touch lies behind a lock of its own.
//!
//! Submitters set an arrival bit and read the mode in one step, and a leader rests by one compare-and-swap that
//! fails if an arrival bit is set. Both act on the same word, so one of the two sees the other: no wake-up is lost.

use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicUsize, Mutex, Ordering, Parker, Unparker, fence};
use crate::terms::{PublishedTerms, Terms, Watch};
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
/// How soon the timekeeper looks at arrivals whose deadlines nobody has seen yet, and how soon it looks at most: each look
/// takes a core from somebody.
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
}

#[derive(Debug)]
struct Idle {
    followers: Vec<usize>,
    alarm: Alarm,
    /// When the timekeeper must look, as of the last time that it was left to it.
    look_at: Option<Instant>,
}

/// When the timekeeper will wake by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alarm {
    /// None runs.
    Absent,
    Never,
    At(Instant),
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
            terms: PublishedTerms::new(epoch),
            idle: Mutex::new(Idle {
                followers: Vec::with_capacity(unparkers.len()),
                alarm: Alarm::Absent,
                look_at: None,
            }),
            unparkers,
        }
    }

    /// A submitter says that it pushed into `lane`; wakes the leader if it must. False if no worker is left to hear it.
    #[must_use]
    #[inline]
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
            DOZING if self.terms.cannot_wait(group, rows, deadline) => self.wake(),
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
            let look_at = look_at(watch, seen, now);
            let (mode, next) = match (heir, idle.alarm) {
                (Some(heir), _) if work_remains || seen & ARRIVALS != 0 => (AWAKE, heir),
                (Some(heir), _) => (ASLEEP, heir),
                (None, Alarm::Absent) => (VACANT, 0),
                (None, _) => {
                    self.terms.publish_watch(watch);
                    (DOZING, self.timekeeper())
                }
            };
            if let Err(now) = self.replace(seen, mode, next) {
                seen = now;
                continue;
            }
            idle.followers.pop();
            let oversleeps = match (idle.alarm, look_at) {
                (Alarm::Absent, _) | (_, None) => false,
                (Alarm::Never, Some(_)) => true,
                (Alarm::At(alarm), Some(look_at)) => look_at < alarm,
            };
            idle.look_at = look_at;
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
            let alarm = match self.try_watch(watched.take(), Instant::now()) {
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
    fn try_watch(&self, watched: Option<Watch>, now: Instant) -> Result<bool, Option<Instant>> {
        let me = self.timekeeper();
        let mut idle = self.idle.lock();
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            if seen & ENDED != 0 {
                idle.alarm = Alarm::Absent;
                return Ok(false);
            }
            let leads = seen >> WORKER_SHIFT == me && seen & MODE != VACANT;
            let is_woken = seen & MODE == AWAKE;
            let (mode, alarm) = match watched {
                Some(watch) if leads && is_woken => {
                    self.terms.publish_watch(watch);
                    (DOZING, look_at(watch, seen, now))
                }
                // Too early: it was left to it meanwhile for longer.
                _ if leads && !is_woken && idle.look_at.is_none_or(|look_at| now < look_at) => (DOZING, idle.look_at),
                _ if leads || seen & MODE == VACANT => (AWAKE, None),
                // A worker leads, and looks by itself unless it is about to leave.
                _ => {
                    let alarm = is_woken.then(|| now + GLANCE);
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
                    idle.look_at = alarm;
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
        self.terms.publish(terms);
        self.rest(DOZING, me)
    }

    /// No worker will lead again: every follower ends.
    pub(crate) fn end(&self) {
        let mut idle = self.idle.lock();
        self.word.fetch_or(ENDED, Ordering::AcqRel);
        // As between the taking of arrivals and the look for them: a submitter that does not see the end is seen.
        fence(Ordering::SeqCst);
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
}

/// When the timekeeper must look at the queue, of which it is known since `now` what to watch for; the word, as `seen`, tells
/// whether something with a deadline came since.
fn look_at(watch: Watch, seen: usize, now: Instant) -> Option<Instant> {
    let glance = now + GLANCE;
    if seen & DUE != 0 { Some(glance) } else { watch.until.map(|until| until.max(glance)) }
}

#[cfg(all(test, not(loom)))]
mod tests;
