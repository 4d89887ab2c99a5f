//! Invalidations: on every replica soon, on one that was cut off before it serves again, and not lost with Redis.

use crate::proxy::Proxy;
use crate::redis::{Redis, wait_until};
use crate::replica::{Replica, answer, config, key, model, serving_when_cut_off};
use std::time::Duration;
use volley_cache::{Reached, Scope, SharedConfig};

const GENERATIONS: &str = "volley:generations";

fn score(redis: &Redis, scope: &str) -> u64 {
    redis.cli(&["zscore", GENERATIONS, scope]).parse().unwrap_or(0)
}

#[test]
fn an_invalidation_here_reaches_the_other_replica_in_both_tiers() {
    let redis = Redis::start(&[]);
    let (a, b) = (Replica::join(&redis.url()), Replica::join(&redis.url()));
    for (edition, scope) in
        [Scope::All, model(), Scope::Version("m".into(), "1".into()), Scope::Tag("t".into()), Scope::Key(key(1))]
            .into_iter()
            .enumerate()
    {
        let edition = edition as u64;
        assert_eq!(a.ask(1, edition), answer(1, edition));
        a.wait_until_written(edition + 1);
        b.wait_until_heard();
        assert_eq!(b.ask(1, 99), answer(1, edition), "{scope}");
        assert_eq!(a.invalidate(scope.clone()), Reached::Everywhere);
        assert_eq!(a.held(1), None, "{scope}");
        assert_eq!(a.fetch(1), None, "{scope}");
        wait_until("the invalidation arrives", || b.held(1).is_none());
        assert_eq!(b.fetch(1), None, "{scope}");
    }
    assert_eq!(b.stats().stale, 5);
}

#[test]
fn an_invalidation_of_something_else_leaves_values_alone() {
    let redis = Redis::start(&[]);
    let (a, b) = (Replica::join(&redis.url()), Replica::join(&redis.url()));
    a.ask(1, 0);
    a.wait_until_written(1);
    for scope in
        [Scope::Model("n".into()), Scope::Version("m".into(), "2".into()), Scope::Tag("u".into()), Scope::Key(key(2))]
    {
        assert_eq!(a.invalidate(scope), Reached::Everywhere);
    }
    b.wait_until_heard();
    assert_eq!(b.ask(1, 1), answer(1, 0));
    assert_eq!(a.held(1), Some(answer(1, 0)));
}

/// The journey of a replica that is cut off, in either way, while another invalidates.
fn cut_off_during_an_invalidation(cut: impl Fn(&Proxy)) {
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.port());
    let a = Replica::join(&redis.url());
    let b = Replica::start(SharedConfig { max_staleness: Duration::from_secs(1), ..config(&proxy.url()) });
    b.wait_until_heard();
    a.ask(1, 0);
    a.wait_until_written(1);
    b.wait_until_heard();
    assert_eq!(b.ask(1, 1), answer(1, 0));

    cut(&proxy);
    assert_eq!(a.invalidate(model()), Reached::Everywhere);
    // The value is still in Redis, as are those that a replica wrote that had not heard of the invalidation.
    assert_eq!(redis.cli(&["exists", &format!("volley:{}", key(1))]), "1");
    wait_until("the staleness allowed is over", || b.held(1).is_none());
    assert!(b.cache.stats().cut_off > 0);

    proxy.resume();
    let before = b.stats().confirmed.expect("it had heard");
    wait_until("it has heard again", || {
        assert_ne!(b.ask(1, 2), answer(1, 0));
        b.stats().confirmed.is_some_and(|ago| ago < before)
    });
    assert_ne!(b.ask(1, 2), answer(1, 0));
    wait_until("what it computes now is stored again", || b.held(1) == Some(answer(1, 2)));
}

#[test]
fn a_replica_whose_connections_break_serves_nothing_that_was_invalidated_meanwhile() {
    cut_off_during_an_invalidation(Proxy::cut);
}

#[test]
fn a_replica_whose_packets_vanish_serves_nothing_that_was_invalidated_meanwhile() {
    cut_off_during_an_invalidation(Proxy::stall);
}

#[test]
fn a_replica_that_is_told_to_serves_on_while_it_is_cut_off_and_stops_when_it_is_back() {
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.port());
    let a = Replica::join(&redis.url());
    let b =
        Replica::start(SharedConfig { max_staleness: Duration::from_secs(1), ..serving_when_cut_off(&proxy.url()) });
    b.wait_until_heard();
    b.ask(1, 0);
    proxy.cut();
    assert_eq!(a.invalidate(model()), Reached::Everywhere);
    wait_until("the staleness allowed is over", || {
        assert_eq!(b.held(1), Some(answer(1, 0)));
        b.cache.stats().cut_off > 0
    });
    proxy.resume();
    wait_until("it has heard of the invalidation", || b.held(1).is_none());
}

#[test]
fn an_invalidation_made_while_redis_is_away_has_effect_here_and_reaches_the_others_later() {
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.port());
    let (a, b) = (Replica::join(&proxy.url()), Replica::join(&redis.url()));
    a.ask(1, 0);
    a.wait_until_written(1);
    b.wait_until_heard();
    assert_eq!(b.ask(1, 1), answer(1, 0));
    proxy.cut();
    wait_until("the loss is noticed", || !a.stats().connected);
    assert_eq!(a.invalidate(model()), Reached::HereOnly);
    assert_eq!(a.held(1), None);
    assert_eq!(a.stats().pending_invalidations, 1);
    assert_eq!(b.held(1), Some(answer(1, 0)));
    proxy.resume();
    wait_until("the invalidation arrives", || b.held(1).is_none());
    wait_until("nothing is pending", || a.stats().pending_invalidations == 0);
    assert_eq!(a.fetch(1), None);
    assert_eq!(b.fetch(1), None);
}

#[test]
fn of_too_many_invalidations_that_wait_for_redis_none_is_lost() {
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.port());
    let (a, b) = (Replica::join(&proxy.url()), Replica::join(&redis.url()));
    assert_eq!(b.ask(1, 0), answer(1, 0));
    proxy.cut();
    wait_until("the loss is noticed", || !a.stats().connected);
    for n in 0..1500 {
        drop(a.shared.invalidate(Scope::Key(key(n))));
    }
    assert!(a.stats().pending_invalidations <= 1000);
    proxy.resume();
    wait_until("the second of them arrives", || b.held(1).is_none());
}

#[test]
fn a_replica_that_joins_late_does_not_find_what_was_invalidated_before() {
    let redis = Redis::start(&[]);
    let a = Replica::join(&redis.url());
    a.ask(1, 0);
    a.wait_until_written(1);
    assert_eq!(a.invalidate(model()), Reached::Everywhere);
    let late = Replica::start(config(&redis.url()));
    wait_until("it asks Redis", || {
        assert_eq!(late.fetch(1), None);
        late.stats().stale > 0
    });
}

#[test]
fn what_redis_lost_is_put_back_by_whoever_knows_it() {
    let mut redis = Redis::start(&[]);
    let (a, b) = (Replica::join(&redis.url()), Replica::join(&redis.url()));
    a.ask(1, 0);
    assert_eq!(a.invalidate(model()), Reached::Everywhere);
    a.ask(1, 1);
    let (all, of_model) = (score(&redis, "all"), score(&redis, "model/m"));
    assert!(0 < all && all < of_model);
    redis.restart();
    wait_until("it is put back", || score(&redis, "model/m") == of_model && score(&redis, "all") == all);
    wait_until("it is counted", || a.stats().restorations + b.stats().restorations > 0);
    assert_eq!(a.held(1), Some(answer(1, 1)), "nothing was invalidated by the loss");
    a.wait_until_heard();
    b.wait_until_heard();
    assert_eq!(score(&redis, "model/m"), of_model, "and nothing later");
}

#[test]
fn what_redis_lost_is_put_back_though_the_newest_of_it_was_invalidated_again() {
    let redis = Redis::start(&[]);
    let a = Replica::join(&redis.url());
    assert_eq!(a.invalidate(model()), Reached::Everywhere);
    assert_eq!(a.invalidate(Scope::Tag("t".into())), Reached::Everywhere);
    let (of_model, of_tag) = (score(&redis, "model/m"), score(&redis, "tag/t"));
    // A failover to a replica that had heard of neither, and then of the tag from somebody else.
    let script = "redis.call('zrem', KEYS[1], 'model/m'); redis.call('zadd', KEYS[1], ARGV[1], 'tag/t')";
    redis.cli(&["eval", script, "1", GENERATIONS, &(of_tag + 1).to_string()]);
    let break_connections = || ["normal", "pubsub"].map(|kind| redis.cli(&["client", "kill", "type", kind]));
    break_connections();
    wait_until("the other is back", || score(&redis, "model/m") == of_model);
    assert_eq!(score(&redis, "tag/t"), of_tag + 1);
    wait_until("it is counted", || a.stats().restorations == 1);
    break_connections();
    a.wait_until_heard();
    a.wait_until_heard();
    assert_eq!(a.stats().restorations, 1, "nothing was lost with the second connection");
}

#[test]
fn a_number_that_redis_gave_twice_is_given_anew() {
    let redis = Redis::start(&[]);
    let a = Replica::join(&redis.url());
    assert_eq!(a.invalidate(model()), Reached::Everywhere);
    a.ask(1, 0);
    assert_eq!(a.held(1), Some(answer(1, 0)));
    // A failover to a replica that had not heard of it, and gave its number to another invalidation.
    let script = "redis.call('zadd', KEYS[1], redis.call('zscore', KEYS[1], ARGV[1]), ARGV[2]); redis.call('zrem', KEYS[1], ARGV[1])";
    let twice = score(&redis, "model/m");
    redis.cli(&["eval", script, "1", GENERATIONS, "model/m", "tag/t"]);
    wait_until("the one is back", || score(&redis, "model/m") == twice);
    assert!(score(&redis, "tag/t") > twice, "and the other has a greater number");
    wait_until("what was computed before the other is not served", || a.held(1).is_none());
}

#[test]
fn where_everything_is_lost_and_nobody_knows_values_that_are_left_are_not_served() {
    let redis = Redis::start(&[]);
    let a = Replica::join(&redis.url());
    a.ask(1, 0);
    assert_eq!(a.close(), 0);
    redis.cli(&["del", GENERATIONS]);
    let b = Replica::start(config(&redis.url()));
    wait_until("it asks Redis", || {
        assert_eq!(b.fetch(1), None);
        b.stats().stale > 0
    });
    assert!(score(&redis, "all") > 0);
}

#[test]
fn of_too_many_invalidations_the_oldest_become_one_of_everything_before_them() {
    let redis = Redis::start(&[]);
    let script = "for n = 1, 9000 do redis.call('zadd', KEYS[1], n, string.format('key/%08x%024x', n * 477218, n)) end";
    redis.cli(&["eval", script, "1", GENERATIONS]);
    let a = Replica::join(&redis.url());
    assert_eq!(a.invalidate(model()), Reached::Everywhere);
    assert_eq!(redis.cli(&["zcard", GENERATIONS]), (9001 - 4096 + 1).to_string());
    assert_eq!(score(&redis, "all"), 4096);
    a.ask(1, 0);
    a.wait_until_written(1);
    let late = Replica::join(&redis.url());
    assert_eq!(late.fetch(1), Some(answer(1, 0)), "what was computed since is fresh: {late:?}", late = late.stats());
    a.wait_until_heard();
    assert_eq!(a.stats().restorations, 0, "nothing is missed");
}

#[test]
fn a_subscription_that_was_lost_is_made_again() {
    let redis = Redis::start(&[]);
    let (a, b) = (Replica::join(&redis.url()), Replica::join(&redis.url()));
    let subscribers = || redis.cli(&["pubsub", "numsub", GENERATIONS]).lines().last().unwrap_or("").to_owned();
    wait_until("both subscribe", || {
        _ = a.invalidate(model());
        subscribers() == "2"
    });
    redis.cli(&["client", "kill", "type", "pubsub"]);
    wait_until("the one that does not invalidate subscribes again", || {
        _ = a.invalidate(model());
        subscribers() == "1"
    });
    wait_until("and so does the other", || {
        _ = b.invalidate(model());
        subscribers() == "2"
    });
}
