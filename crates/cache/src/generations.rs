//! What was invalidated, and when: the part of coherence that replicas exchange.

use crate::scope::Scope;
use crate::stamp::Stamp;
use std::collections::HashMap;

/// How many scopes are remembered one by one.
const SCOPES: usize = 10_000;

/// For each scope the stamp of its last invalidation, and the greatest stamp of all.
///
/// An entry remembers the greatest stamp that was known when its computation *began*. It may be served as long as no
/// scope it belongs to was invalidated at a greater one: what was computed before an invalidation, or meanwhile by
/// someone who had not heard of it, is born too early, however late it turns up.
///
/// [`merge`](Self::merge) takes maxima, so it does not matter in which order, how often or over which ways two replicas
/// hear of an invalidation. Two invalidations must not have the same shared number: an entry born after the one would
/// outlive the other. Whoever gives out numbers and finds one given twice (a data store that lost its last writes)
/// invalidates both scopes anew.
///
/// Memory is bounded: beyond 10,000 scopes, the older half is folded into an invalidation of everything at the greatest
/// stamp among them. That costs what was computed before, and never serves what was invalidated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Generations {
    seen: Stamp,
    all: Stamp,
    /// None of them at or before `all`, which covers those.
    scopes: HashMap<Scope, Stamp>,
}

impl Generations {
    /// The greatest stamp known.
    #[must_use]
    pub fn seen(&self) -> Stamp {
        self.seen
    }

    /// When `scope` itself was last invalidated; [`Stamp::ZERO`] if it never was.
    #[must_use]
    pub fn of(&self, scope: &Scope) -> Stamp {
        self.scopes.get(scope).copied().unwrap_or_default().max(self.all)
    }

    /// Each scope that was invalidated, and when.
    pub fn iter(&self) -> impl Iterator<Item = (Scope, Stamp)> {
        let all = (self.all > Stamp::ZERO).then_some((Scope::All, self.all));
        all.into_iter().chain(self.scopes.iter().map(|(scope, stamp)| (scope.clone(), *stamp)))
    }

    /// The greatest stamp becomes `seen`, and each scope's that of its last invalidation, if they were not beyond it.
    pub fn merge(&mut self, seen: Stamp, invalidated: impl IntoIterator<Item = (Scope, Stamp)>) {
        self.seen = self.seen.max(seen);
        for (scope, stamp) in invalidated {
            self.seen = self.seen.max(stamp);
            if stamp <= self.of(&scope) {
                continue;
            }
            if scope == Scope::All {
                self.cover(stamp);
            } else {
                self.scopes.insert(scope, stamp);
                if self.scopes.len() > SCOPES {
                    self.cover(self.median());
                }
            }
        }
    }

    /// Everything is invalidated at `stamp`, which covers what was invalidated until then.
    fn cover(&mut self, stamp: Stamp) {
        self.all = stamp;
        self.scopes.retain(|_, own| *own > stamp);
    }

    fn median(&self) -> Stamp {
        let mut stamps: Vec<Stamp> = self.scopes.values().copied().collect();
        let middle = stamps.len() / 2;
        *stamps.select_nth_unstable(middle).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::scope::tests::scope;
    use proptest::prelude::*;

    fn updates() -> impl Strategy<Value = Vec<(Scope, Stamp)>> {
        prop::collection::vec((scope(), (0_u64..20).prop_map(Stamp::from_bits)), 0..12)
    }

    fn merged(parts: &[&[(Scope, Stamp)]]) -> Generations {
        let mut generations = Generations::default();
        for part in parts {
            generations.merge(Stamp::ZERO, part.iter().cloned());
        }
        generations
    }

    proptest! {
        #[test]
        fn replicas_agree_in_whatever_order_and_however_often_they_hear(a in updates(), b in updates(), c in updates()) {
            let once = merged(&[&a, &b, &c]);
            prop_assert_eq!(&merged(&[&c, &b, &a]), &once);
            prop_assert_eq!(&merged(&[&a, &b, &a, &c, &c, &b]), &once);
            let from_another: Vec<_> = merged(&[&b, &c]).iter().collect();
            prop_assert_eq!(&merged(&[&a, &from_another]), &once);
        }

        #[test]
        fn every_scope_has_the_stamp_of_its_own_last_invalidation_or_that_of_everything(updates in updates()) {
            let generations = merged(&[&updates]);
            let last = |of: &Scope| {
                let of_it = updates.iter().filter(|(scope, _)| scope == of || *scope == Scope::All);
                of_it.map(|(_, stamp)| *stamp).max().unwrap_or_default()
            };
            for (scope, _) in &updates {
                prop_assert_eq!(generations.of(scope), last(scope));
            }
            let seen = updates.iter().map(|(_, stamp)| *stamp).max().unwrap_or_default();
            prop_assert_eq!(generations.seen(), seen);
        }
    }

    fn of_key(n: u64) -> Scope {
        Scope::Key(Key::from_bytes(u128::from(n).to_le_bytes()))
    }

    #[test]
    fn too_many_scopes_are_folded_oldest_first_into_one_that_covers_them() {
        let mut generations = Generations::default();
        for n in 1..=3 * SCOPES as u64 {
            generations.merge(Stamp::ZERO, [(of_key(n), Stamp::from_bits(n))]);
            assert!(generations.scopes.len() <= SCOPES);
            assert_eq!(generations.of(&of_key(n)).bits(), n, "the latest is remembered as it is");
        }
        for n in 1..=3 * SCOPES as u64 {
            assert!(generations.of(&of_key(n)).bits() >= n, "{n} was forgotten");
        }
        assert!(generations.all.bits() < 3 * SCOPES as u64 - SCOPES as u64 / 3, "half of them stay apart");
    }
}
