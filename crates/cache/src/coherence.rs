//! Keeps the first tier from serving what was invalidated, here or elsewhere.

use crate::domain::{Domain, WeakDomain};
use crate::gate::{Gate, WhenCutOff};
use crate::generations::Generations;
use crate::key::Key;
use crate::local::Local;
use crate::scope::Scope;
use crate::stamp::Stamp;
use parking_lot::RwLock;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a cache knows of invalidations: the side of it that whoever keeps replicas coherent talks to. Clones are the
/// same.
///
/// A hit costs one load of its domain's generation. What is stored is checked once more while no invalidation can come
/// between, so that a computation which began before an invalidation and ends after it leaves nothing behind.
#[derive(Clone)]
pub struct Coherence(Arc<State>);

struct State {
    book: RwLock<Book>,
    /// `book.generations.seen()`, for look-ups that begin a computation. Raised before any domain's generation is: who
    /// reads the new one and computes after it has begun after the invalidation has.
    seen: AtomicU64,
    gate: Gate,
    /// Invalidations made here.
    invalidations: AtomicU64,
    local: Arc<Local>,
}

#[derive(Default)]
struct Book {
    generations: Generations,
    domains: Vec<WeakDomain>,
}

impl Coherence {
    pub(crate) fn new(local: Arc<Local>) -> Self {
        Self(Arc::new(State {
            book: RwLock::default(),
            seen: AtomicU64::new(0),
            gate: Gate::open(),
            invalidations: AtomicU64::new(0),
            local,
        }))
    }

    /// The domain of these names.
    #[must_use]
    pub fn domain(&self, model: &str, version: &str, tags: &[&str]) -> Domain {
        let new = Domain::new(model, version, tags);
        let mut book = self.0.book.write();
        let Book { generations, domains } = &mut *book;
        domains.retain(|weak| weak.upgrade().is_some());
        if let Some(known) =
            domains.iter().filter_map(WeakDomain::upgrade).find(|known| known.is_made_of_the_same(&new))
        {
            return known;
        }
        new.update(generations);
        domains.push(new.downgrade());
        new
    }

    /// Forgets all entries of `scope`, with effect for every look-up that begins after this returns. The stamp is
    /// [provisional](Stamp::is_provisional): a shared number is given to the scope by [`merge`](Self::merge).
    pub fn invalidate(&self, scope: Scope) -> Stamp {
        self.0.invalidations.fetch_add(1, Ordering::Relaxed);
        let mut book = self.0.book.write();
        let stamp = book.generations.seen().next();
        self.apply(&mut book, stamp, [(scope, stamp)]);
        stamp
    }

    /// Hears of invalidations made elsewhere, and of the greatest stamp given out so far.
    pub fn merge(&self, seen: Stamp, invalidated: impl IntoIterator<Item = (Scope, Stamp)>) {
        let mut book = self.0.book.write();
        self.apply(&mut book, seen, invalidated);
    }

    /// All that is known of invalidations by now. What is provisional among it nobody else knows yet.
    #[must_use]
    pub fn generations(&self) -> Generations {
        self.0.book.read().generations.clone()
    }

    /// The greatest stamp known: the birth of what begins to be computed now.
    #[must_use]
    pub fn seen(&self) -> Stamp {
        Stamp::from_bits(self.0.seen.load(Ordering::Acquire))
    }

    /// Whether a value of this birth may be served. It may be no more by the time this returns.
    #[must_use]
    pub fn is_fresh(&self, key: Key, domain: &Domain, born: Stamp) -> bool {
        self.0.book.read().is_fresh(key, domain, born)
    }

    /// From now on the first tier is known to be coherent with others until `until` and no longer, unless that is
    /// [extended](Self::confirm).
    pub fn bound_staleness(&self, until: Instant, when_cut_off: WhenCutOff) {
        self.0.gate.bound(until, when_cut_off);
    }

    /// Everything invalidated elsewhere up to some moment is known: the first tier is coherent until `until`, that
    /// moment and the staleness allowed. Does not move the bound back.
    pub fn confirm(&self, until: Instant) {
        self.0.gate.extend(until);
    }

    pub(crate) fn cut_off(&self) -> Option<WhenCutOff> {
        self.0.gate.cut_off(Instant::now)
    }

    pub(crate) fn invalidations(&self) -> u64 {
        self.0.invalidations.load(Ordering::Relaxed)
    }

    /// Calls `keep` if a value of this birth may be served, before anything else can be invalidated; whether it did.
    pub(crate) fn keep_if_fresh(&self, key: Key, domain: &Domain, born: Stamp, keep: impl FnOnce()) -> bool {
        let book = self.0.book.read();
        let fresh = book.is_fresh(key, domain, born);
        if fresh {
            keep();
        }
        fresh
    }

    pub(crate) fn local(&self) -> &Local {
        &self.0.local
    }

    fn apply(&self, book: &mut Book, seen: Stamp, invalidated: impl IntoIterator<Item = (Scope, Stamp)>) {
        let Book { generations, domains } = book;
        let is_news = |(scope, stamp): &(Scope, Stamp)| *stamp > generations.of(scope);
        let news: Vec<_> = invalidated.into_iter().filter(is_news).collect();
        generations.merge(seen, news.iter().cloned());
        self.0.seen.store(generations.seen().bits(), Ordering::Release);
        domains.iter().filter_map(WeakDomain::upgrade).for_each(|domain| domain.update(generations));
        for (scope, _) in news {
            match scope {
                Scope::Key(key) => self.0.local.remove(key),
                // Leaves as what is not asked for does. To drop it here would take as long as there are entries.
                Scope::All | Scope::Model(_) | Scope::Version(..) | Scope::Tag(_) => {}
            }
        }
    }
}

impl Book {
    fn is_fresh(&self, key: Key, domain: &Domain, born: Stamp) -> bool {
        born >= domain.generation().max(self.generations.of(&Scope::Key(key)))
    }
}

impl fmt::Debug for Coherence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coherence").field("seen", &self.seen()).finish_non_exhaustive()
    }
}
