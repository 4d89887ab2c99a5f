//! Who leads, who follows, and what each is told.

mod common;

use common::{AMPLE, ANY, Bell, Error, cache, key, look_up, value};
use std::pin::pin;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};
use volley_cache::{Cache, CacheStats, Follow, Followed, Key, Lead, Lookup, Rank, Scope};

fn lead(cache: &Cache<Error>, key: Key, rank: Rank) -> Lead<Error> {
    match look_up(cache, key, rank) {
        Lookup::Lead(lead) => lead,
        other => panic!("expected to lead, got {other:?}"),
    }
}

fn follow(cache: &Cache<Error>, key: Key, rank: Rank) -> Follow<Error> {
    match look_up(cache, key, rank) {
        Lookup::Follow(follow) => follow,
        other => panic!("expected to follow, got {other:?}"),
    }
}

fn ready(bell: &Arc<Bell>, follow: &mut Follow<Error>) -> Followed<Error> {
    match bell.poll(follow) {
        Poll::Ready(followed) => followed,
        Poll::Pending => panic!("expected an outcome"),
    }
}

#[test]
fn threads_that_ask_for_one_key_at_once_compute_it_once() {
    const THREADS: usize = 8;
    let cache = cache(AMPLE);
    for n in 0..300 {
        let computed = AtomicU64::new(0);
        let start = Barrier::new(THREADS);
        let ask = || {
            start.wait();
            match look_up(&cache, key(n), ANY) {
                Lookup::Hit(found) => assert_eq!(found, value(n)),
                Lookup::Lead(lead) => {
                    computed.fetch_add(1, Ordering::SeqCst);
                    lead.complete(value(n));
                }
                Lookup::Follow(follow) => {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                    assert!(matches!(runtime.block_on(follow), Followed::Value(found) if found == value(n)));
                }
            }
        };
        thread::scope(|scope| (0..THREADS).for_each(|_| _ = scope.spawn(ask)));
        assert_eq!(computed.into_inner(), 1, "key {n}");
    }
    let CacheStats { hits, misses, shared, .. } = cache.stats();
    assert_eq!((misses, hits + shared), (300, 300 * (THREADS as u64 - 1)));
}

#[test]
fn a_completed_value_answers_followers_and_later_look_ups() {
    let (cache, bell) = (cache(AMPLE), Arc::new(Bell::default()));
    let lead = lead(&cache, key(1), ANY);
    let mut followers: Vec<_> = (0..3).map(|_| follow(&cache, key(1), ANY)).collect();
    for follower in &mut followers {
        assert!(bell.poll(follower).is_pending());
    }
    assert_eq!(lead.followers(), 3);
    lead.complete(value(1));
    assert!(bell.rang());
    for follower in &mut followers {
        assert!(matches!(ready(&bell, follower), Followed::Value(found) if found == value(1)));
    }
    assert!(matches!(look_up(&cache, key(1), ANY), Lookup::Hit(found) if found == value(1)));
    let CacheStats { hits, misses, shared, evictions, expirations, entries, .. } = cache.stats();
    assert_eq!((hits, misses, shared, evictions, expirations, entries), (1, 1, 3, 0, 0, 1));
}

#[test]
fn a_dropped_lead_promotes_the_follower_that_waited_longest_and_only_it() {
    let cache = cache(AMPLE);
    let bells: [Arc<Bell>; 2] = Default::default();
    let first_lead = lead(&cache, key(1), ANY);
    let (mut first, mut second) = (follow(&cache, key(1), ANY), follow(&cache, key(1), ANY));
    assert!(bells[0].poll(&mut first).is_pending());
    assert!(bells[1].poll(&mut second).is_pending());
    drop(first_lead);
    assert!(bells[0].rang());
    assert!(!bells[1].rang());
    assert!(bells[1].poll(&mut second).is_pending());
    let Followed::Lead(promoted) = ready(&bells[0], &mut first) else { panic!("the first follower leads") };
    promoted.complete(value(1));
    assert!(matches!(ready(&bells[1], &mut second), Followed::Value(found) if found == value(1)));
    assert_eq!(cache.stats().misses, 2, "both leaders had to compute");
}

#[test]
fn a_leader_that_panics_passes_the_lead_on() {
    let (cache, bell) = (cache(AMPLE), Arc::new(Bell::default()));
    let lead = lead(&cache, key(1), ANY);
    let mut follower = follow(&cache, key(1), ANY);
    let died = thread::spawn(move || {
        let _lead = lead;
        panic!("part of the test");
    });
    assert!(died.join().is_err());
    assert!(matches!(ready(&bell, &mut follower), Followed::Lead(_)));
}

#[test]
fn a_promoted_follower_that_goes_unpolled_passes_the_lead_on() {
    let cache = cache(AMPLE);
    let bells: [Arc<Bell>; 2] = Default::default();
    let lead = lead(&cache, key(1), ANY);
    let (mut first, mut second) = (follow(&cache, key(1), ANY), follow(&cache, key(1), ANY));
    assert!(bells[0].poll(&mut first).is_pending());
    assert!(bells[1].poll(&mut second).is_pending());
    lead.fail();
    drop(first);
    assert!(bells[1].rang());
    assert!(matches!(ready(&bells[1], &mut second), Followed::Lead(_)));
}

#[test]
fn a_flight_that_everyone_left_vanishes() {
    let cache = cache(AMPLE);
    let first = lead(&cache, key(1), ANY);
    let follower = follow(&cache, key(1), ANY);
    first.fail();
    drop(follower);
    lead(&cache, key(1), ANY).complete(value(1));
    assert!(matches!(look_up(&cache, key(1), ANY), Lookup::Hit(_)));
}

#[test]
fn an_error_of_everybody_reaches_every_follower_and_is_not_kept() {
    let (cache, bell) = (cache(AMPLE), Arc::new(Bell::default()));
    let first = lead(&cache, key(1), ANY);
    let mut followers = [follow(&cache, key(1), ANY), follow(&cache, key(1), ANY)];
    first.fail_all("the device is gone");
    for follower in &mut followers {
        assert!(matches!(ready(&bell, follower), Followed::Failed("the device is gone")));
    }
    let _again = lead(&cache, key(1), ANY);
    assert_eq!(cache.stats().entries, 0);
}

#[test]
fn the_leader_reads_the_join_of_all_who_wait() {
    let now = Instant::now();
    let at = |urgency, ms| Rank { urgency, deadline: Some(now + Duration::from_millis(ms)) };
    let cache = cache(AMPLE);
    let lead = lead(&cache, key(1), at(1, 20));
    assert_eq!(lead.rank(), at(1, 20));
    let urgent = follow(&cache, key(1), at(3, 5));
    let _patient = follow(&cache, key(1), at(0, 80));
    assert_eq!(lead.rank(), at(3, 80));
    drop(urgent);
    assert_eq!(lead.rank(), at(1, 80));
}

#[test]
fn a_leader_that_left_no_longer_counts_in_the_rank() {
    let (cache, bell) = (cache(AMPLE), Arc::new(Bell::default()));
    let urgent = lead(&cache, key(1), Rank { urgency: 9, ..ANY });
    let mut follower = follow(&cache, key(1), Rank { urgency: 2, ..ANY });
    urgent.fail();
    let Followed::Lead(lead) = ready(&bell, &mut follower) else { panic!("the follower leads") };
    assert_eq!(lead.rank().urgency, 2);
    assert_eq!(lead.followers(), 0);
}

#[test]
fn a_leader_hears_of_those_who_raise_the_rank_and_of_no_others() {
    let (cache, bell) = (cache(AMPLE), Arc::new(Bell::default()));
    let lead = lead(&cache, key(1), Rank { urgency: 1, ..ANY });
    let mut raised = pin!(lead.raised(lead.rank()));
    assert!(bell.poll(&mut raised).is_pending());
    let _equal = follow(&cache, key(1), Rank { urgency: 1, ..ANY });
    assert!(!bell.rang());
    let _urgent = follow(&cache, key(1), Rank { urgency: 2, ..ANY });
    assert!(bell.rang());
    assert_eq!(bell.poll(&mut raised), Poll::Ready(Rank { urgency: 2, ..ANY }));
}

#[test]
fn what_is_under_way_when_its_key_is_invalidated_is_neither_stored_nor_joined() {
    for clear_all in [false, true] {
        let (cache, bell) = (cache(AMPLE), Arc::new(Bell::default()));
        let stale = lead(&cache, key(1), ANY);
        let mut early = follow(&cache, key(1), ANY);
        if clear_all {
            cache.invalidate(Scope::All);
        } else {
            cache.invalidate(Scope::Key(key(1)));
        }
        let fresh = lead(&cache, key(1), ANY);
        let mut late = follow(&cache, key(1), ANY);
        stale.complete(value(1));
        assert!(matches!(ready(&bell, &mut early), Followed::Value(found) if found == value(1)));
        assert!(bell.poll(&mut late).is_pending());
        fresh.complete(value(2));
        assert!(matches!(ready(&bell, &mut late), Followed::Value(found) if found == value(2)));
        assert!(matches!(look_up(&cache, key(1), ANY), Lookup::Hit(found) if found == value(2)));
    }
}

#[test]
fn an_invalidated_value_is_computed_anew_and_others_stay() {
    let cache = cache(AMPLE);
    for n in [1, 2] {
        lead(&cache, key(n), ANY).complete(value(n));
    }
    cache.invalidate(Scope::Key(key(1)));
    assert!(matches!(look_up(&cache, key(1), ANY), Lookup::Lead(_)));
    assert!(matches!(look_up(&cache, key(2), ANY), Lookup::Hit(_)));
    cache.invalidate(Scope::All);
    lead(&cache, key(2), ANY).complete(value(3));
    assert!(matches!(look_up(&cache, key(2), ANY), Lookup::Hit(found) if found == value(3)));
    assert_eq!(cache.stats().entries, 1);
}

#[test]
fn without_capacity_nothing_is_kept_and_flights_are_still_shared() {
    let bell = Arc::new(Bell::default());
    let cache = cache(0);
    let first = lead(&cache, key(1), ANY);
    let mut follower = follow(&cache, key(1), ANY);
    first.complete(value(1));
    assert!(matches!(ready(&bell, &mut follower), Followed::Value(_)));
    assert!(matches!(look_up(&cache, key(1), ANY), Lookup::Lead(_)));
}
