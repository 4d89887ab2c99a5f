//! The primitives that the rest is built on: the standard ones, or loom's when it explores the interleavings.

#[cfg(loom)]
mod explored;
#[cfg(not(loom))]
mod real;

#[cfg(loom)]
pub(crate) use explored::{
    Arc, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering, Parker, Thread, Unparker, UnsafeCell,
    current_thread, fence, park_thread, park_thread_until, yield_now,
};
#[cfg(not(loom))]
pub(crate) use real::{
    Arc, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering, Parker, Thread, Unparker, UnsafeCell,
    current_thread, fence, park_thread, park_thread_until, yield_now,
};
