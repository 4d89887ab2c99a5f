//! A bounded queue from many producers to one consumer: a lane's ingress.
//!
//! The bounded queue of Dmitry Vyukov (1024cores.net, "Bounded MPMC queue"), with a single consumer. A general
//! queue's `pop` waits for a producer that has reserved a slot and not yet written it; this one says "nothing yet"
//! instead. So a producer that is preempted between the two steps holds back what was pushed to *its* lane after
//! it, until it runs again, but never stops the consumer nor the other lanes.

use crossbeam::utils::CachePadded;

use crate::sync::{Arc, AtomicUsize, Ordering, UnsafeCell};

struct Slot<E> {
    /// `position`: free for the push at that position. `position + 1`: holds its element. The producer stores the
    /// latter with Release, which the consumer's Acquire pairs with; the consumer stores `position + capacity`
    /// with Release, which the next producer's Acquire pairs with.
    turn: AtomicUsize,
    element: UnsafeCell<Option<E>>,
}

/// The producers' side.
pub(crate) struct Ring<E> {
    slots: Box<[Slot<E>]>,
    /// The next position to push at; reserved by compare-and-swap. Relaxed: `turn` publishes the element.
    tail: CachePadded<AtomicUsize>,
}

/// The one consumer of a ring.
pub(crate) struct Consumer<E> {
    ring: Arc<Ring<E>>,
    head: usize,
}

// SAFETY: an element is reached only by the producer that reserved its position, until it publishes it through
// `turn`, and then only by the one consumer, until it hands the slot on through `turn`. So sharing a ring moves
// elements between threads, and never shares one.
unsafe impl<E: Send> Sync for Ring<E> {}

impl<E> Ring<E> {
    /// A ring for at least `capacity` elements: rounded up to a power of two, and to two.
    pub(crate) fn with_capacity(capacity: usize) -> (Arc<Self>, Consumer<E>) {
        let size = capacity.checked_next_power_of_two().expect("a ring is smaller than the address space").max(2);
        let slots = (0..size)
            .map(|position| Slot { turn: AtomicUsize::new(position), element: UnsafeCell::new(None) })
            .collect();
        let ring = Arc::new(Self { slots, tail: CachePadded::new(AtomicUsize::new(0)) });
        let consumer = Consumer { ring: Arc::clone(&ring), head: 0 };
        (ring, consumer)
    }

    /// Pushes, or gives the element back if the ring is full. Lock-free: a push only ever waits for one that won.
    pub(crate) fn push(&self, element: E) -> Result<(), E> {
        let mut position = self.tail.load(Ordering::Relaxed);
        loop {
            let slot = &self.slots[position & (self.slots.len() - 1)];
            let lead = slot.turn.load(Ordering::Acquire).wrapping_sub(position).cast_signed();
            if lead < 0 {
                return Err(element);
            }
            if lead > 0 {
                position = self.tail.load(Ordering::Relaxed);
                continue;
            }
            let next = position.wrapping_add(1);
            match self.tail.compare_exchange_weak(position, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    // SAFETY: `turn` says that the slot is free for `position`, and the swap above made this
                    // thread the only one to push there; the consumer waits for the store below.
                    slot.element.with_mut(|place| unsafe { *place = Some(element) });
                    slot.turn.store(next, Ordering::Release);
                    return Ok(());
                }
                Err(now) => position = now,
            }
        }
    }
}

impl<E> Consumer<E> {
    /// How many elements the ring holds, which may be more than were asked for.
    pub(crate) fn capacity(&self) -> usize {
        self.ring.slots.len()
    }

    /// The next element; none if the ring is empty, or if the producer whose turn it is has not finished.
    pub(crate) fn pop(&mut self) -> Option<E> {
        let slot = &self.ring.slots[self.head & (self.ring.slots.len() - 1)];
        let next = self.head.wrapping_add(1);
        if slot.turn.load(Ordering::Acquire) != next {
            return None;
        }
        // SAFETY: `turn` says that the element is written, and `&mut self` that nobody else takes it.
        let element = slot.element.with_mut(|place| unsafe { (*place).take() });
        slot.turn.store(self.head.wrapping_add(self.ring.slots.len()), Ordering::Release);
        self.head = next;
        element
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ring_does_what_a_bounded_fifo_does(capacity in 1_usize..9, pushes in prop::collection::vec(any::<bool>(), 0..200)) {
            let (ring, mut consumer) = Ring::with_capacity(capacity);
            let room = capacity.next_power_of_two().max(2);
            let mut model = VecDeque::new();
            for (i, push) in pushes.into_iter().enumerate() {
                if push {
                    let expected = if model.len() < room { model.push_back(i); Ok(()) } else { Err(i) };
                    prop_assert_eq!(ring.push(i), expected);
                } else {
                    prop_assert_eq!(consumer.pop(), model.pop_front());
                }
            }
        }
    }

    #[test]
    fn elements_left_in_a_ring_are_dropped_with_it() {
        let witness = Arc::new(());
        let (ring, consumer) = Ring::with_capacity(4);
        for _ in 0..3 {
            assert!(ring.push(Arc::clone(&witness)).is_ok());
        }
        drop((ring, consumer));
        assert_eq!(Arc::strong_count(&witness), 1);
    }
}

#[cfg(all(test, loom))]
mod explored {
    use super::*;

    #[test]
    fn every_element_arrives_once_and_in_its_producers_order() {
        loom::model(|| {
            let (ring, mut consumer) = Ring::with_capacity(2);
            let producer = {
                let ring = Arc::clone(&ring);
                loom::thread::spawn(move || {
                    ring.push(1).expect("room for two");
                })
            };
            ring.push(2).expect("room for two");
            let mut seen = Vec::new();
            while seen.len() < 2 {
                match consumer.pop() {
                    Some(element) => seen.push(element),
                    None => loom::thread::yield_now(),
                }
            }
            producer.join().expect("the producer ends");
            seen.sort_unstable();
            assert_eq!(seen, [1, 2]);
            assert_eq!(consumer.pop(), None);
        });
    }

    #[test]
    fn a_slot_is_reused_only_after_its_element_was_taken() {
        loom::model(|| {
            let (ring, mut consumer) = Ring::with_capacity(2);
            let producer = {
                let ring = Arc::clone(&ring);
                loom::thread::spawn(move || {
                    for element in 0..3 {
                        let mut element = Err(element);
                        while let Err(refused) = element {
                            element = ring.push(refused);
                            if element.is_err() {
                                loom::thread::yield_now();
                            }
                        }
                    }
                })
            };
            for expected in 0..3 {
                let element = loop {
                    match consumer.pop() {
                        Some(element) => break element,
                        None => loom::thread::yield_now(),
                    }
                };
                assert_eq!(element, expected);
            }
            producer.join().expect("the producer ends");
        });
    }
}
