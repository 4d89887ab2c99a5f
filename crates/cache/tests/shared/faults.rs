//! One server that is away, slow, full or takes no writes.

use crate::proxy::Proxy;
use crate::redis::{Redis, wait_until};
use crate::replica::{Replica, answer, block_on, config, key, model};
use std::time::Duration;
use volley_cache::{BreakerState, Reached, SharedConfig};

/// Stores the answer to `n` at `a` and waits until `b` finds it.
fn wait_until_shared(a: &Replica, b: &Replica, n: u64) {
    wait_until("a value goes from one replica to the other", || {
        a.shared.store(key(n), a.cache.coherence().seen(), answer(n, 0));
        b.fetch_now(n).is_some()
    });
}

#[test]
fn a_paused_server_is_soon_left_alone_and_comes_back_by_itself() {
    let redis = Redis::start(&[]);
    let budget = Duration::from_millis(50);
    let (a, b) =
        (Replica::join(&redis.url()), Replica::start(SharedConfig { lookup_budget: budget, ..config(&redis.url()) }));
    wait_until_shared(&a, &b, 1);
    redis.pause();
    wait_until("the breaker opens, or polls are missed", || {
        assert_eq!(b.fetch_now(1), None);
        b.stats().skipped > 0
    });
    let before = b.stats();
    for _ in 0..1000 {
        assert_eq!(b.fetch_now(1), None);
    }
    let stats = b.stats();
    let asked = stats.timeouts + stats.errors - before.timeouts - before.errors;
    assert!(asked < 100, "{asked} of 1000 look-ups were sent to a server that does not answer");
    redis.resume();
    wait_until_shared(&a, &b, 2);
    assert_eq!(b.stats().lookup_breaker, BreakerState::Closed);
}

#[test]
fn a_server_that_is_killed_and_started_again_is_used_again() {
    let mut redis = Redis::start(&[]);
    let patient = || SharedConfig { max_staleness: Duration::from_secs(600), ..config(&redis.url()) };
    let (a, b) = (Replica::start(patient()), Replica::start(patient()));
    wait_until_shared(&a, &b, 1);
    redis.kill();
    wait_until("the loss is noticed", || {
        assert_eq!(b.fetch_now(1), None);
        !b.stats().connected
    });
    assert_eq!(b.ask(2, 0), answer(2, 0));
    assert_eq!(b.held(2), Some(answer(2, 0)), "the first tier serves on, until its staleness is over");
    redis.restart();
    wait_until_shared(&a, &b, 3);
}

#[test]
fn a_server_that_is_away_at_the_start_is_joined_when_it_comes() {
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.port());
    proxy.cut();
    let (a, b) = (Replica::start(config(&proxy.url())), Replica::start(config(&proxy.url())));
    assert_eq!(a.ask(1, 0), answer(1, 0));
    assert_eq!(b.ask(1, 1), answer(1, 1));
    proxy.resume();
    wait_until_shared(&a, &b, 2);
}

#[test]
fn a_slow_server_costs_each_look_up_its_budget_and_no_more() {
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.port());
    let slow = SharedConfig { lookup_budget: Duration::from_millis(20), ..config(&proxy.url()) };
    let (a, b) = (Replica::join(&redis.url()), Replica::start(slow));
    wait_until_shared(&a, &b, 1);
    proxy.delay(Duration::from_millis(300));
    wait_until("the breaker opens", || {
        assert_eq!(b.fetch_now(1), None);
        b.stats().lookup_breaker != BreakerState::Closed
    });
    assert!(b.stats().timeouts >= 5);
    proxy.resume();
    wait_until_shared(&a, &b, 2);
}

#[test]
fn a_full_server_still_answers_look_ups_and_spreads_invalidations() {
    let redis = Redis::start(&["--maxmemory-policy", "noeviction"]);
    let (a, b) = (Replica::join(&redis.url()), Replica::join(&redis.url()));
    wait_until_shared(&a, &b, 1);
    redis.cli(&["config", "set", "maxmemory", "1"]);
    wait_until("the breaker for writes opens", || {
        a.shared.store(key(2), a.cache.coherence().seen(), answer(2, 0));
        a.stats().write_breaker == BreakerState::Open
    });
    assert!(a.stats().refused >= 5);
    assert_eq!(a.stats().lookup_breaker, BreakerState::Closed);
    assert_eq!(b.fetch(1), Some(answer(1, 0)));
    assert_eq!(a.invalidate(model()), Reached::Everywhere);
    wait_until("the invalidation arrives", || b.fetch(1).is_none());
    assert_eq!(b.stats().lookup_breaker, BreakerState::Closed);
    redis.cli(&["config", "set", "maxmemory", "0"]);
    wait_until_shared(&a, &b, 3);
}

#[test]
fn a_server_that_takes_no_writes_still_answers_look_ups() {
    let redis = Redis::start(&[]);
    let (a, b) = (Replica::join(&redis.url()), Replica::join(&redis.url()));
    wait_until_shared(&a, &b, 1);
    // A replica of nobody.
    redis.cli(&["replicaof", "127.0.0.1", "1"]);
    wait_until("the breaker for writes opens", || {
        a.shared.store(key(2), a.cache.coherence().seen(), answer(2, 0));
        a.stats().write_breaker == BreakerState::Open
    });
    b.wait_until_heard();
    assert_eq!(b.fetch(1), Some(answer(1, 0)));
    assert_eq!(a.invalidate(model()), Reached::HereOnly);
    assert_eq!(a.fetch(1), None, "it has effect where it was made");
    redis.cli(&["replicaof", "no", "one"]);
    wait_until("the invalidation arrives", || b.fetch(1).is_none());
    wait_until_shared(&a, &b, 3);
}

#[test]
fn while_the_server_is_away_the_oldest_values_make_room_for_the_newest() {
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.port());
    proxy.cut();
    let a = Replica::start(SharedConfig { queue_entries: 3, ..config(&proxy.url()) });
    (0..5).for_each(|n| _ = a.ask(n, 0));
    let stats = a.stats();
    assert_eq!((stats.queued, stats.dropped), (3, 2));
    assert!(stats.queued_bytes > 3 * answer(0, 0).len());
    proxy.resume();
    a.wait_until_written(3);
    let stored = (0..5).filter(|n| redis.cli(&["exists", &format!("volley:{}", key(*n))]) == "1");
    assert_eq!(stored.collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(a.stats().queued_bytes, 0);
}

#[test]
fn closing_waits_no_longer_than_it_is_told_for_a_server_that_is_away() {
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.port());
    proxy.cut();
    let replica = Replica::start(config(&proxy.url()));
    replica.ask(1, 0);
    assert_eq!(replica.close_within(Duration::from_millis(50)), 1);
}

#[test]
fn what_is_invalidated_or_stored_after_closing_waits_for_nobody() {
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.port());
    let replica = Replica::join(&proxy.url());
    proxy.stall();
    let before = replica.shared.invalidate(model());
    replica.close_within(Duration::ZERO);
    assert_eq!(block_on(before), Reached::HereOnly);
    replica.ask(1, 0);
    assert_eq!(replica.invalidate(model()), Reached::HereOnly);
    assert_eq!(replica.held(1), None, "here it has effect");
    wait_until("the last are let go", || {
        let stats = replica.stats();
        (stats.queued, stats.pending_invalidations, stats.dropped) == (0, 0, 1)
    });
}
