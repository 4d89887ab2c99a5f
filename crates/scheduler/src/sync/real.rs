//! What runs in production.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use std::thread::{Thread, current as current_thread, park as park_thread, yield_now};
use std::time::Instant;

pub(crate) use crossbeam::sync::{Parker, Unparker};
pub(crate) use parking_lot::Mutex;

/// Parks until unparked, `until`, or for no reason at all.
pub(crate) fn park_thread_until(until: Instant) {
    std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
}

/// The standard cell, with the access by closure that loom can check.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with_mut<V>(&self, access: impl FnOnce(*mut T) -> V) -> V {
        access(self.0.get())
    }
}
