//! What entries belong to, and until when those born before count no more.

use crate::generations::Generations;
use crate::scope::Scope;
use crate::stamp::Stamp;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// The model, version and tags that entries belong to, and by which they can be invalidated.
///
/// Made by [`Cache::domain`](crate::Cache::domain) once for each, and handed to every look-up. Clones are the same
/// domain, and so are two made of the same names while one is alive. A key belongs to one domain: what tells two domains
/// apart is part of the key.
#[derive(Clone)]
pub struct Domain(Arc<Inner>);

struct Inner {
    model: Box<str>,
    version: Box<str>,
    tags: Box<[Box<str>]>,
    /// What reaches the domain's entries together.
    scopes: Box<[Scope]>,
    /// The last invalidation of any of them. Written under the lock of the coherence that made the domain; read by each
    /// hit. What tells a caller that an invalidation has returned orders the two; release and acquire are for callers
    /// that merely happen to look up afterwards.
    generation: AtomicU64,
}

impl Domain {
    pub(crate) fn new(model: &str, version: &str, tags: &[&str]) -> Self {
        let mut tags: Vec<Box<str>> = tags.iter().copied().map(Box::from).collect();
        tags.sort_unstable();
        tags.dedup();
        let mut scopes = vec![Scope::All, Scope::Model(model.into()), Scope::Version(model.into(), version.into())];
        scopes.extend(tags.iter().cloned().map(Scope::Tag));
        Self(Arc::new(Inner {
            model: model.into(),
            version: version.into(),
            tags: tags.into(),
            scopes: scopes.into(),
            generation: AtomicU64::new(0),
        }))
    }

    /// The model's name.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.0.model
    }

    /// The model's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// The tags, sorted, each once.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.0.tags.iter().map(|tag| &**tag)
    }

    /// When anything the domain belongs to was last invalidated: entries born before are not served.
    #[must_use]
    pub fn generation(&self) -> Stamp {
        Stamp::from_bits(self.0.generation.load(Ordering::Acquire))
    }

    /// Hears of what was invalidated.
    pub(crate) fn update(&self, generations: &Generations) {
        let last = self.0.scopes.iter().map(|scope| generations.of(scope)).max().unwrap_or_default();
        self.0.generation.fetch_max(last.bits(), Ordering::Release);
    }

    /// Whether it is made of the same names.
    pub(crate) fn is_made_of_the_same(&self, other: &Self) -> bool {
        self.0.scopes == other.0.scopes
    }

    pub(crate) fn downgrade(&self) -> WeakDomain {
        WeakDomain(Arc::downgrade(&self.0))
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { model, version, tags, .. } = &*self.0;
        let generation = self.generation();
        f.debug_struct("Domain")
            .field("model", model)
            .field("version", version)
            .field("tags", tags)
            .field("generation", &generation)
            .finish_non_exhaustive()
    }
}

/// A domain that lives as long as others hold it.
#[derive(Debug)]
pub(crate) struct WeakDomain(Weak<Inner>);

impl WeakDomain {
    pub(crate) fn upgrade(&self) -> Option<Domain> {
        self.0.upgrade().map(Domain)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_reached_by_its_model_its_version_and_each_of_its_tags() {
        let after = |scope: &Scope| {
            let mut generations = Generations::default();
            generations.merge(Stamp::ZERO, [(scope.clone(), Stamp::from_bits(7))]);
            let domain = Domain::new("m", "1", &["y", "x", "y"]);
            domain.update(&generations);
            domain.generation().bits()
        };
        let version = |model: &str, version: &str| Scope::Version(model.into(), version.into());
        for reaching in [Scope::All, Scope::Model("m".into()), version("m", "1"), Scope::Tag("y".into())] {
            assert_eq!(after(&reaching), 7, "{reaching}");
        }
        for other in [Scope::Model("n".into()), version("m", "2"), version("n", "1"), Scope::Tag("m".into())] {
            assert_eq!(after(&other), 0, "{other}");
        }
    }

    #[test]
    fn the_order_of_tags_and_their_number_do_not_matter() {
        let domain = Domain::new("m", "1", &["x", "y"]);
        assert!(domain.is_made_of_the_same(&Domain::new("m", "1", &["y", "x", "y"])));
        assert!(!domain.is_made_of_the_same(&Domain::new("m", "1", &["x"])));
        assert!(!domain.is_made_of_the_same(&Domain::new("m", "2", &["x", "y"])));
    }
}
