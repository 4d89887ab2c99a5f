//! One server, in order.

use crate::redis::Redis;
use crate::replica::{Replica, answer, config, key};
use std::time::Duration;
use volley_cache::SharedConfig;

#[test]
fn what_one_replica_computed_another_finds() {
    let redis = Redis::start(&[]);
    let (a, b) = (Replica::join(&redis.url()), Replica::join(&redis.url()));
    assert_eq!(b.fetch(1), None);
    assert_eq!(a.ask(1, 0), answer(1, 0));
    a.wait_until_written(1);
    b.wait_until_heard();
    assert_eq!(b.ask(1, 1), answer(1, 0));
    assert_eq!(b.held(1), Some(answer(1, 0)), "what was found stays in the first tier");
    let stats = b.stats();
    assert_eq!((stats.hits, stats.misses, stats.answered), (1, 1, 2));
    assert!(stats.answered_in > Duration::ZERO);
}

#[test]
fn values_live_as_long_as_they_are_told_to_less_the_jitter() {
    let redis = Redis::start(&[]);
    let (longest, jitter) = (Duration::from_secs(1000), Duration::from_secs(500));
    let replica = Replica::start(SharedConfig { time_to_live: longest, ttl_jitter: jitter, ..config(&redis.url()) });
    (0..20).for_each(|n| _ = replica.ask(n, 0));
    replica.wait_until_written(20);
    let lives: Vec<u64> = (0..20)
        .map(|n| redis.cli(&["pttl", &format!("volley:{}", key(n))]).parse().expect("a life in milliseconds"))
        .collect();
    // The test itself may take a while.
    assert!(lives.iter().all(|life| (400_000..=1_000_000).contains(life)), "{lives:?}");
    assert!(lives.iter().max().expect("20") - lives.iter().min().expect("20") > 100_000, "{lives:?}");
}

#[test]
fn it_speaks_tls_to_a_server_that_asks_for_user_and_password() {
    let redis = Redis::start_guarded();
    let guarded = |password: &str| SharedConfig {
        username: Some("replica".into()),
        password: Some(password.into()),
        ca_file: Some(redis.certificate()),
        ..config(&format!("rediss://127.0.0.1:{}", redis.port()))
    };
    let (a, b) = (Replica::start(guarded("password")), Replica::start(guarded("password")));
    let stranger = Replica::start(guarded("guess"));
    a.wait_until_heard();
    b.wait_until_heard();
    a.ask(1, 0);
    a.wait_until_written(1);
    assert_eq!(b.fetch(1), Some(answer(1, 0)));
    assert_eq!(stranger.fetch_now(1), None);
    assert!(stranger.stats().confirmed.is_none());
}

#[test]
fn a_server_whose_certificate_is_not_the_one_expected_is_not_believed() {
    let (redis, other) = (Redis::start_guarded(), Redis::start_guarded());
    let believing = |certificate| SharedConfig {
        username: Some("replica".into()),
        password: Some("password".into()),
        ca_file: Some(certificate),
        ..config(&format!("rediss://127.0.0.1:{}", redis.port()))
    };
    let right = Replica::start(believing(redis.certificate()));
    let wrong = Replica::start(believing(other.certificate()));
    right.wait_until_heard();
    assert!(wrong.stats().confirmed.is_none());
}

#[test]
fn values_that_are_damaged_moved_or_forged_are_not_served() {
    let redis = Redis::start(&[]);
    let (a, b) = (Replica::join(&redis.url()), Replica::join(&redis.url()));
    (0..5).for_each(|n| _ = a.ask(n, 0));
    a.wait_until_written(5);
    let name = |n| format!("volley:{}", key(n));
    redis.cli(&["setrange", &name(0), "30", "x"]);
    redis.cli(&["set", &name(1), "no frame at all"]);
    redis.cli(&["copy", &name(3), &name(2), "replace"]);
    redis.cli(&["append", &name(3), "x"]);
    for n in 0..4 {
        assert_eq!(b.fetch(n), None, "{n}");
    }
    assert_eq!(b.fetch(4), Some(answer(4, 0)));
    redis.cli(&["del", &name(4)]);
    redis.cli(&["lpush", &name(4), "not even a string"]);
    assert_eq!(b.fetch(4), None);
    let stats = b.stats();
    assert_eq!((stats.hits, stats.corrupt, stats.errors), (1, 4, 1));
}

#[test]
fn closing_writes_what_waits() {
    let redis = Redis::start(&[]);
    let (a, b) = (Replica::join(&redis.url()), Replica::join(&redis.url()));
    for n in 0..1000 {
        a.shared.store(key(n), a.cache.coherence().seen(), answer(n, 0));
    }
    assert_eq!(a.close(), 0);
    assert_eq!(a.close(), 0, "a second time does nothing");
    for n in 0..1000 {
        assert_eq!(b.fetch(n), Some(answer(n, 0)), "{n}");
    }
    assert_eq!(a.fetch_now(1), None);
}
