//! What is served after an invalidation, here or elsewhere.

#[expect(dead_code, reason = "each test file uses its part of what they share")]
mod common;

use common::{AMPLE, ANY, Error, cache, domain, key, value};
use proptest::prelude::*;
use std::time::{Duration, Instant};
use volley_cache::{Cache, Domain, Key, Lead, Lookup, Scope, Stamp, WhenCutOff};

fn lead(cache: &Cache<Error>, domain: &Domain, key: Key) -> Lead<Error> {
    match cache.lookup(key, domain, ANY) {
        Lookup::Lead(lead) => lead,
        other => panic!("expected to lead, got {other:?}"),
    }
}

fn is_served(cache: &Cache<Error>, domain: &Domain, key: Key) -> bool {
    matches!(cache.lookup(key, domain, ANY), Lookup::Hit(_))
}

fn version(model: &str, version: &str) -> Scope {
    Scope::Version(model.into(), version.into())
}

#[test]
fn an_invalidation_reaches_the_entries_of_its_scope_and_no_others() {
    let names = [("a", "1", "x"), ("a", "2", "y"), ("b", "1", "x")];
    let scopes = [
        (Scope::All, [false, false, false]),
        (Scope::Model("a".into()), [false, false, true]),
        (version("a", "2"), [true, false, true]),
        (Scope::Tag("x".into()), [false, true, false]),
        (Scope::Key(key(2)), [true, true, false]),
    ];
    for (scope, stays) in scopes {
        let cache = cache(AMPLE);
        let domains = names.map(|(model, version, tag)| cache.domain(model, version, &[tag]));
        for (n, domain) in domains.iter().enumerate() {
            lead(&cache, domain, key(n as u64)).complete(value(1));
        }
        cache.invalidate(scope.clone());
        for (n, domain) in domains.iter().enumerate() {
            assert_eq!(is_served(&cache, domain, key(n as u64)), stays[n], "entry {n} after {scope}");
        }
    }
}

#[test]
fn what_was_invalidated_elsewhere_is_not_served_and_what_is_computed_afterwards_is() {
    for scope in [Scope::All, Scope::Model("model".into()), Scope::Tag("tag".into()), Scope::Key(key(1))] {
        let cache = cache(AMPLE);
        let domain = domain(&cache);
        lead(&cache, &domain, key(1)).complete(value(1));
        let under_way = lead(&cache, &domain, key(2));
        let invalidated = [(scope.clone(), Stamp::shared(5)), (Scope::Key(key(2)), Stamp::shared(6))];
        cache.coherence().merge(Stamp::shared(6), invalidated.clone());
        under_way.complete(value(1));
        for n in [1, 2] {
            lead(&cache, &domain, key(n)).complete(value(2));
        }
        cache.coherence().merge(Stamp::shared(6), invalidated);
        for n in [1, 2] {
            assert!(is_served(&cache, &domain, key(n)), "{scope}: heard of once more, it is no news");
        }
    }
}

#[test]
fn a_stale_entry_is_counted_and_replaced() {
    let cache = cache(AMPLE);
    let domain = domain(&cache);
    lead(&cache, &domain, key(1)).complete(value(1));
    cache.invalidate(Scope::Model("model".into()));
    lead(&cache, &domain, key(1)).complete(value(2));
    assert!(is_served(&cache, &domain, key(1)));
    let stats = cache.stats();
    assert_eq!((stats.stale, stats.misses, stats.hits, stats.invalidations, stats.entries), (1, 2, 1, 1, 1));
}

#[test]
fn a_domain_made_after_an_invalidation_knows_of_it() {
    let cache = cache(AMPLE);
    let first = cache.domain("m", "1", &[]);
    let early = lead(&cache, &first, key(1));
    drop(first);
    cache.invalidate(version("m", "1"));
    early.complete(value(1));
    assert!(!is_served(&cache, &cache.domain("m", "1", &[]), key(1)));
}

#[test]
fn what_is_found_elsewhere_is_taken_unless_it_was_invalidated_since_it_was_born() {
    for scope in [Scope::All, version("model", "1"), Scope::Key(key(1))] {
        let cache = cache(AMPLE);
        let domain = domain(&cache);
        cache.coherence().merge(Stamp::shared(7), [(scope, Stamp::shared(6))]);
        let lead = lead(&cache, &domain, key(1));
        assert_eq!(lead.born(), Stamp::shared(7));
        let lead = lead.complete_found(value(1), Stamp::shared(5)).expect_err("it was invalidated at 6");
        lead.complete_found(value(2), Stamp::shared(6)).expect("it was computed after that");
        assert!(matches!(cache.lookup(key(1), &domain, ANY), Lookup::Hit(found) if found == value(2)));
    }
}

#[test]
fn a_value_found_elsewhere_keeps_its_own_birth() {
    let cache = cache(AMPLE);
    let domain = domain(&cache);
    cache.coherence().merge(Stamp::shared(9), []);
    lead(&cache, &domain, key(1)).complete_found(value(1), Stamp::shared(5)).expect("nothing was invalidated");
    cache.coherence().merge(Stamp::shared(9), [(Scope::All, Stamp::shared(6))]);
    assert!(!is_served(&cache, &domain, key(1)));
}

#[test]
fn the_one_to_whom_the_lead_was_passed_computes_what_is_current_then() {
    let cache = cache(AMPLE);
    let domain = domain(&cache);
    let first = lead(&cache, &domain, key(1));
    let Lookup::Follow(follow) = cache.lookup(key(1), &domain, ANY) else { panic!("expected to follow") };
    cache.invalidate(Scope::All);
    first.fail();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let volley_cache::Followed::Lead(second) = runtime.block_on(follow) else { panic!("expected to lead") };
    second.complete(value(2));
    assert!(is_served(&cache, &domain, key(1)), "it was computed after the invalidation");
}

#[test]
fn a_local_invalidation_takes_effect_before_it_has_a_shared_number_and_yields_to_that() {
    let cache = cache(AMPLE);
    let domain = domain(&cache);
    cache.coherence().merge(Stamp::shared(3), []);
    let local = cache.coherence().invalidate(Scope::Model("model".into()));
    assert!(local.is_provisional() && local > Stamp::shared(3) && local < Stamp::shared(4));
    lead(&cache, &domain, key(1)).complete(value(1));
    assert!(is_served(&cache, &domain, key(1)));
    let unknown: Vec<_> = cache.coherence().generations().iter().filter(|(_, at)| at.is_provisional()).collect();
    assert_eq!(unknown, [(Scope::Model("model".into()), local)]);

    // Another replica was given 4, and this one's invalidation 5.
    cache.coherence().merge(Stamp::shared(5), [(Scope::Model("model".into()), Stamp::shared(5))]);
    assert!(!is_served(&cache, &domain, key(1)), "nobody can tell whether it was computed before 4 was made");
    assert!(cache.coherence().generations().iter().all(|(_, at)| !at.is_provisional()));
}

#[test]
fn past_its_bound_the_first_tier_answers_only_if_it_is_told_to() {
    let cache = cache(AMPLE);
    let domain = domain(&cache);
    lead(&cache, &domain, key(1)).complete(value(1));
    let passed = Instant::now();
    let far = passed + Duration::from_secs(3600);
    cache.coherence().bound_staleness(far, WhenCutOff::Bypass);
    assert!(is_served(&cache, &domain, key(1)));
    cache.coherence().bound_staleness(passed, WhenCutOff::Serve);
    assert!(is_served(&cache, &domain, key(1)));
    cache.coherence().bound_staleness(passed, WhenCutOff::Bypass);
    lead(&cache, &domain, key(1)).complete(value(2));
    assert!(!is_served(&cache, &domain, key(1)));
    assert_eq!(cache.stats().cut_off, 3);
    cache.coherence().confirm(far);
    assert!(is_served(&cache, &domain, key(1)), "what was stored meanwhile is served once it may be");
}

proptest! {
    #[test]
    fn keys_are_read_back_from_their_bytes_and_their_text(bytes in any::<[u8; 16]>()) {
        let key = Key::from_bytes(bytes);
        prop_assert_eq!(key.to_bytes(), bytes);
        prop_assert_eq!(format!("key/{key}").parse(), Ok(Scope::Key(key)));
    }
}
