//! A cluster of three primaries with a replica each.

use crate::redis::{Cluster, Redis, wait_until};
use crate::replica::{Replica, answer, key, model};
use volley_cache::Reached;

/// Enough that every node has some.
const QUESTIONS: u64 = 60;

#[test]
fn a_cluster_shares_values_and_invalidations_through_resharding_and_a_failover() {
    let mut cluster = Cluster::start();
    let (a, b) = (Replica::join(&cluster.url()), Replica::join(&cluster.url()));
    assert_shared(&a, &b, 0);
    let stored = |node: &Redis| node.cli(&["dbsize"]).parse::<u64>().expect("a number");
    // Replicas follow their primaries a little later.
    wait_until("every node has values", || cluster.nodes.iter().all(|node| stored(node) > 0));

    reshard(&cluster);
    assert_shared(&a, &b, 1);

    let owner = cluster.owner_of("volley:generations", None).expect("an owner");
    cluster.nodes[owner].kill();
    wait_until("another node takes over", || {
        let taken_over = cluster.owner_of("volley:generations", Some(owner)).is_some_and(|now| now != owner);
        let mut others = (0..6).filter(|node| *node != owner).map(|node| &cluster.nodes[node]);
        taken_over && others.all(|node| node.cli(&["cluster", "info"]).contains("cluster_state:ok"))
    });
    assert_shared(&a, &b, 2);

    cluster.nodes[owner].restart();
    cluster.wait_until_whole();
    assert_shared(&a, &b, 3);
}

/// Everything is invalidated, computed in this `edition` by the one, and found by the other; nothing older is.
fn assert_shared(a: &Replica, b: &Replica, edition: u64) {
    wait_until("an invalidation reaches Redis", || a.invalidate(model()) == Reached::Everywhere);
    b.wait_until_heard();
    for n in 0..QUESTIONS {
        assert_eq!(a.ask(n, edition), answer(n, edition));
    }
    let mut missing: Vec<u64> = (0..QUESTIONS).collect();
    wait_until("every value goes from one replica to the other", || {
        for n in &missing {
            a.shared.store(key(*n), a.cache.coherence().seen(), answer(*n, edition));
        }
        missing.retain(|n| match b.fetch_now(*n) {
            Some(found) => {
                assert_eq!(found, answer(*n, edition));
                false
            }
            None => true,
        });
        missing.is_empty()
    });
}

/// Moves the slot of the generations, and many others, to another primary: the lowest of its owner's, of which it is
/// the 656th.
fn reshard(cluster: &Cluster) {
    let owner = || cluster.owner_of("volley:generations", None);
    let from = owner().expect("an owner");
    let leads = |node: &Redis| node.cli(&["role"]).starts_with("master");
    let to = (0..6).find(|node| *node != from && leads(&cluster.nodes[*node])).expect("another primary");
    let id = |node: usize| cluster.nodes[node].cli(&["cluster", "myid"]);
    let any = format!("127.0.0.1:{}", cluster.nodes[0].port());
    let words = ["--cluster", "reshard", &any, "--cluster-from", &id(from), "--cluster-to", &id(to)];
    let options = ["--cluster-slots", "1000", "--cluster-yes", "--cluster-pipeline", "100"];
    let printed = cluster.nodes[0].cli(&[&words[..], &options[..]].concat());
    assert!(printed.contains("Moving slot"), "{printed}");
    wait_until("the slot has moved", || owner() == Some(to));
    wait_until("every node knows of it", || cluster.agrees());
}
