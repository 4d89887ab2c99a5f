//! A priority queue for what mostly comes in order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Elements, least first. One that comes in order goes to the end of a line, which costs nothing to speak of; one that
/// belongs before the last of the line goes into a heap beside it.
///
/// Deadlines that are all as far from their submissions, or missing, come in order; random ones cost what a heap costs.
#[derive(Debug)]
pub(crate) struct NearlySorted<E> {
    line: VecDeque<E>,
    heap: BinaryHeap<Reverse<E>>,
}

impl<E: Ord> NearlySorted<E> {
    pub(crate) const fn new() -> Self {
        Self { line: VecDeque::new(), heap: BinaryHeap::new() }
    }

    pub(crate) fn push(&mut self, element: E) {
        if self.line.back().is_none_or(|last| *last <= element) {
            self.line.push_back(element);
        } else {
            self.heap.push(Reverse(element));
        }
    }

    /// The least element.
    pub(crate) fn first(&self) -> Option<&E> {
        match (self.line.front(), self.heap.peek()) {
            (Some(line), Some(Reverse(heap))) => Some(line.min(heap)),
            (line, heap) => line.or(heap.map(|Reverse(element)| element)),
        }
    }

    pub(crate) fn pop(&mut self) -> Option<E> {
        let from_heap = match (self.line.front(), self.heap.peek()) {
            (Some(line), Some(Reverse(heap))) => heap < line,
            (line, _) => line.is_none(),
        };
        if from_heap { self.heap.pop().map(|Reverse(element)| element) } else { self.line.pop_front() }
    }

    pub(crate) fn len(&self) -> usize {
        self.line.len() + self.heap.len()
    }

    /// All elements, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &E> {
        self.line.iter().chain(self.heap.iter().map(|Reverse(element)| element))
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&E) -> bool) {
        self.line.retain(&mut keep);
        self.heap.retain(|Reverse(element)| keep(element));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn elements_leave_as_they_would_a_heap(steps in prop::collection::vec((0_u8..4, 0_u8..50), 0..200)) {
            let (mut queue, mut heap) = (NearlySorted::new(), BinaryHeap::new());
            for (step, element) in steps {
                match step {
                    0 => prop_assert_eq!(queue.pop(), heap.pop().map(|Reverse(element)| element)),
                    1 => {
                        queue.retain(|kept| kept % 3 != element % 3);
                        heap.retain(|Reverse(kept)| kept % 3 != element % 3);
                    }
                    _ => {
                        queue.push(element);
                        heap.push(Reverse(element));
                    }
                }
                prop_assert_eq!(queue.first(), heap.peek().map(|Reverse(element)| element));
                prop_assert_eq!(queue.len(), heap.len());
                prop_assert_eq!(queue.iter().count(), heap.len());
            }
        }
    }
}
