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
    assert_eq!(control.try_watch(None, Instant::now()).map_err(|alarm| alarm.is_some()), Err(true));
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
    assert_eq!(control.try_watch(None, Instant::now()), Ok(true));
}

#[test]
fn a_worker_takes_leadership_from_the_timekeeper_asleep_or_awake() {
    let (control, until) = watched();
    assert_eq!(control.join(0), Role::Lead);
    control.leave(false, Watch::ANY, Instant::now());
    announce(&control, group(0), 1, Some(until));
    assert_eq!(control.try_watch(None, Instant::now()), Ok(true));
    assert_eq!(control.join(0), Role::Lead);
    // What the timekeeper saw is of no interest any more.
    assert!(control.try_watch(Some(Watch::ANY), Instant::now()).is_err());
    assert_eq!(control.word.load(Ordering::Relaxed) >> WORKER_SHIFT, 0);
}

#[test]
fn the_timekeeper_soon_looks_at_a_deadline_that_came_while_the_worker_left_but_not_at_once() {
    let (control, parkers) = led(1);
    let now = Instant::now();
    assert!(control.rest(ASLEEP, 0));
    assert_eq!(control.try_watch(None, now), Err(None));
    announce(&control, group(0), 1, Some(now + SOON));
    control.leave(true, Watch::ANY, now);
    // It was woken to set its alarm, or the test hangs.
    parkers[1].park();
    assert_eq!(control.try_watch(None, now), Err(Some(now + GLANCE)));
    assert_eq!(control.try_watch(None, now + GLANCE), Ok(true));
}

#[test]
fn what_becomes_hopeless_at_once_is_looked_at_as_soon_and_an_alarm_that_was_put_off_is_not_heeded() {
    let (control, _) = led(1);
    let start = Instant::now();
    assert_eq!(control.try_watch(None, start), Err(Some(start + GLANCE)));
    let at_once = Watch { until: Some(start), due_before: Some(start) };
    control.leave(false, at_once, start);
    assert_eq!(control.join(0), Role::Lead);
    // The worker, back from a short batch, leaves again.
    let later = start + GLANCE / 2;
    control.leave(false, at_once, later);
    assert_eq!(control.try_watch(None, start + GLANCE), Err(Some(later + GLANCE)));
    assert_eq!(control.try_watch(None, later + GLANCE), Ok(true));
    // What came while it looked waits for a glance, too.
    announce(&control, group(0), 1, Some(start + SOON));
    let seen = later + 2 * GLANCE;
    assert_eq!(control.try_watch(Some(Watch::ANY), seen), Err(Some(seen + GLANCE)));
    assert_eq!(control.try_watch(None, seen), Err(Some(seen + GLANCE)), "woken too early, it rests on");
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
