//! A primary that fails, and its replica that takes over, behind Sentinel.

use crate::redis::{Sentinels, wait_until};
use crate::replica::{Replica, answer, key, model};
use volley_cache::Reached;

#[test]
fn after_a_failover_values_are_shared_again_and_nothing_invalidated_comes_back() {
    let mut servers = Sentinels::start();
    let (a, b) = (Replica::join(&servers.url()), Replica::join(&servers.url()));
    a.ask(1, 0);
    a.wait_until_written(1);
    assert_eq!(b.ask(1, 1), answer(1, 0));
    assert_eq!(a.invalidate(model()), Reached::Everywhere);
    wait_until("the invalidation arrives", || b.held(1).is_none());

    servers.primary.kill();
    wait_until("the replica takes over", || servers.replica.cli(&["role"]).starts_with("master"));
    wait_until("a value goes from one replica to the other", || {
        assert_eq!(b.fetch_now(1), None, "it was invalidated");
        a.shared.store(key(2), a.cache.coherence().seen(), answer(2, 0));
        b.fetch_now(2) == Some(answer(2, 0))
    });
    b.ask(3, 0);
    assert_eq!(b.held(3), Some(answer(3, 0)));
    wait_until("an invalidation reaches Redis", || a.invalidate(model()) == Reached::Everywhere);
    wait_until("and the other replica", || b.held(3).is_none());
}
