//! Values that wait to be written.

use crate::key::{BuildPassThrough, Key};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// What an entry costs beside its value, in bytes: its place in line and in the index.
const ENTRY_OVERHEAD: usize = 96;

/// A bounded line of values to be written. Where it is full the oldest goes: the newest is the one most likely to be
/// asked for. A key waits once, in its first place, with its latest value.
#[derive(Debug)]
pub(super) struct Queue {
    line: VecDeque<Waiting>,
    /// Where a key waits: its place is `number - taken`.
    index: HashMap<Key, u64, BuildPassThrough>,
    /// How many have left the line from the front.
    taken: u64,
    bytes: usize,
    most_entries: usize,
    most_bytes: usize,
}

/// A value to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) key: Key,
    /// The shared number of its birth.
    pub(super) born: u64,
    pub(super) value: Bytes,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.value.len() + ENTRY_OVERHEAD
    }
}

impl Queue {
    pub(super) fn new(most_entries: usize, most_bytes: usize) -> Self {
        Self { line: VecDeque::new(), index: HashMap::default(), taken: 0, bytes: 0, most_entries, most_bytes }
    }

    /// Appends a value, or puts it in the place of an older one of its key; how many had to go for it. A value that is
    /// larger than the whole queue goes itself.
    pub(super) fn push(&mut self, waiting: Waiting) -> usize {
        if waiting.bytes() > self.most_bytes {
            return 1;
        }
        self.bytes += waiting.bytes();
        let next = self.taken + self.line.len() as u64;
        let number = *self.index.entry(waiting.key).or_insert(next);
        if number == next {
            self.line.push_back(waiting);
        } else {
            let place = usize::try_from(number - self.taken).expect("a place in line");
            let older = std::mem::replace(&mut self.line[place], waiting);
            self.bytes -= older.bytes();
        }
        let mut dropped = 0;
        while self.bytes > self.most_bytes || self.line.len() > self.most_entries {
            self.pop();
            dropped += 1;
        }
        dropped
    }

    /// The oldest, up to `most_entries` of them and until `most_bytes` are reached.
    pub(super) fn take(&mut self, most_entries: usize, most_bytes: usize) -> Vec<Waiting> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < most_entries && bytes < most_bytes {
            let Some(waiting) = self.pop() else { break };
            bytes += waiting.bytes();
            batch.push(waiting);
        }
        batch
    }

    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.line.pop_front()?;
        self.taken += 1;
        self.bytes -= waiting.bytes();
        self.index.remove(&waiting.key);
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn waiting(key: u8, born: u64, bytes: usize) -> Waiting {
        Waiting { key: Key::from_bytes([key; 16]), born, value: Bytes::from(vec![0; bytes]) }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8, usize),
        Take(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u8..6, 0_usize..400).prop_map(|(key, bytes)| Step::Push(key, bytes)),
            1 => (0_usize..4, 0_usize..500).prop_map(|(entries, bytes)| Step::Take(entries, bytes)),
        ]
    }

    proptest! {
        /// Against a plain list.
        #[test]
        fn it_keeps_order_bounds_and_the_latest_value_of_each_key(steps in prop::collection::vec(step(), 0..60)) {
            const ENTRIES: usize = 4;
            const BYTES: usize = 900;
            let mut queue = Queue::new(ENTRIES, BYTES);
            let mut list: Vec<Waiting> = Vec::new();
            for (born, step) in (0..).zip(steps) {
                match step {
                    Step::Push(key, bytes) => {
                        let new = waiting(key, born, bytes);
                        match list.iter_mut().find(|waiting| waiting.key == new.key) {
                            Some(older) => *older = new.clone(),
                            None => list.push(new.clone()),
                        }
                        let mut dropped = 0;
                        while list.len() > ENTRIES || list.iter().map(Waiting::bytes).sum::<usize>() > BYTES {
                            list.remove(0);
                            dropped += 1;
                        }
                        prop_assert_eq!(queue.push(new), dropped);
                    }
                    Step::Take(entries, bytes) => {
                        let batch = queue.take(entries, bytes);
                        prop_assert_eq!(&batch[..], &list[..batch.len()]);
                        list.drain(..batch.len());
                        let taken: usize = batch.iter().map(Waiting::bytes).sum();
                        prop_assert!(list.is_empty() || batch.len() == entries || taken >= bytes);
                    }
                }
                prop_assert_eq!(queue.len(), list.len());
                prop_assert_eq!(queue.bytes(), list.iter().map(Waiting::bytes).sum::<usize>());
            }
        }
    }

    #[test]
    fn a_value_larger_than_the_queue_drops_nothing_but_itself() {
        let mut queue = Queue::new(10, 1000);
        assert_eq!(queue.push(waiting(1, 1, 10)), 0);
        assert_eq!(queue.push(waiting(2, 2, 1000)), 1);
        assert_eq!(queue.take(10, 1000), [waiting(1, 1, 10)]);
    }
}
