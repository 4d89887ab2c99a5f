//! What runs under loom.

use std::time::Instant;

pub(crate) use loom::cell::UnsafeCell;
pub(crate) use loom::sync::Arc;
use loom::sync::Condvar;
pub(crate) use loom::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use loom::thread::{Thread, current as current_thread, park as park_thread, yield_now};

/// Loom has no clock: a timed park is a park that ends for no reason.
pub(crate) fn park_thread_until(_until: Instant) {
    yield_now();
}

/// `parking_lot`'s shape over loom's mutex.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().expect("no model panics with a lock held")
    }

    pub(crate) fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

#[derive(Debug, Default)]
struct Token {
    given: loom::sync::Mutex<bool>,
    changed: Condvar,
}

/// `crossbeam`'s parker, modelled: one token, given by [`Unparker::unpark`], taken by [`Parker::park`].
#[derive(Debug)]
pub(crate) struct Parker(Unparker);

/// The giving half of a [`Parker`].
#[derive(Debug, Clone)]
pub(crate) struct Unparker(Arc<Token>);

impl Parker {
    pub(crate) fn new() -> Self {
        Self(Unparker(Arc::new(Token::default())))
    }

    pub(crate) fn unparker(&self) -> &Unparker {
        &self.0
    }

    pub(crate) fn park(&self) {
        let token = &self.0.0;
        let mut given = token.given.lock().expect("no model panics with a lock held");
        while !*given {
            given = token.changed.wait(given).expect("no model panics with a lock held");
        }
        *given = false;
    }

    #[expect(clippy::unused_self, reason = "the shape of crossbeam's")]
    pub(crate) fn park_deadline(&self, _until: Instant) {
        yield_now();
    }
}

impl Unparker {
    pub(crate) fn unpark(&self) {
        *self.0.given.lock().expect("no model panics with a lock held") = true;
        self.0.changed.notify_one();
    }
}
