//! Bytes as they came from the network: one piece nearly always, several when a body arrived in several reads.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Neighbours that are both shorter than this are joined. What a piece costs beside its bytes then stays small against
/// them, however finely a caller chops a body: the protocol allows chunks of one byte.
const SMALL: usize = 1024;

/// A run of bytes in one or more pieces. Splitting shares; nothing is copied until the batch buffer is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pieces {
    first: Bytes,
    rest: VecDeque<Bytes>,
}

impl Pieces {
    /// Adds a piece at the end.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
            return;
        }
        let last = self.rest.back_mut().unwrap_or(&mut self.first);
        if last.len() < SMALL && piece.len() < SMALL {
            *last = joined(std::mem::take(last), &piece);
        } else {
            self.rest.push_back(piece);
        }
    }

    /// These two pieces, however short.
    #[cfg(test)]
    pub(crate) fn cut(first: Bytes, second: Bytes) -> Self {
        Self { first, rest: VecDeque::from([second]) }
    }

    /// Bytes in all pieces.
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }

    /// The pieces, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.first[..]).chain(self.rest.iter().map(|piece| &piece[..]))
    }

    /// Takes the first `count` bytes off.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn split_to(&mut self, count: usize) -> Self {
        if count <= self.first.len() {
            let taken = Self { first: self.first.split_to(count), rest: VecDeque::new() };
            if self.first.is_empty() {
                self.first = self.rest.pop_front().unwrap_or_default();
            }
            return taken;
        }
        let mut taken = Self::default();
        let mut missing = count;
        while missing > 0 {
            let part = self.split_to(missing.min(self.first.len()));
            assert!(part.len() > 0, "{missing} bytes more than there are");
            missing -= part.len();
            taken.push(part.first);
        }
        taken
    }

    /// The bytes as one piece, copied only if there are several.
    pub(crate) fn into_contiguous(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut joined = BytesMut::with_capacity(self.len());
        for piece in self.iter() {
            joined.extend_from_slice(piece);
        }
        joined.freeze()
    }
}

impl From<Bytes> for Pieces {
    fn from(first: Bytes) -> Self {
        Self { first, rest: VecDeque::new() }
    }
}

/// `head` with `tail` after it. Room is left at the end, so that the next tail is not paid for with another copy.
fn joined(head: Bytes, tail: &[u8]) -> Bytes {
    let mut joined = head.try_into_mut().unwrap_or_else(|shared| {
        let mut own = BytesMut::with_capacity(2 * SMALL);
        own.extend_from_slice(&shared);
        own
    });
    joined.extend_from_slice(tail);
    joined.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_chopped_into_single_bytes_is_kept_in_few_pieces() {
        let whole: Bytes = (0..100_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut pieces = Pieces::default();
        for at in 0..whole.len() {
            pieces.push(whole.slice(at..=at));
        }
        assert!(pieces.iter().count() <= whole.len() / SMALL + 1, "{} pieces", pieces.iter().count());
        let head = pieces.split_to(70_001);
        assert_eq!(head.into_contiguous(), whole[..70_001]);
        assert_eq!(pieces.into_contiguous(), whole[70_001..]);
    }

    #[test]
    fn splitting_anywhere_keeps_every_byte_in_order() {
        for cuts in [&[][..], &[3], &[1, 4], &[2, 3, 5]] {
            for at in 0..=8 {
                // Letters long enough that pieces stay apart, and short enough that they are joined.
                for letter in [SMALL, 1] {
                    let whole: Bytes = (b'a'..=b'h').flat_map(|byte| vec![byte; letter]).collect();
                    let mut pieces = Pieces::default();
                    let mut start = 0;
                    for cut in cuts.iter().chain([&8]).map(|cut| cut * letter) {
                        pieces.push(whole.slice(start..cut));
                        start = cut;
                    }
                    let at = at * letter;
                    let head = pieces.split_to(at);
                    assert_eq!((head.len(), pieces.len()), (at, whole.len() - at));
                    assert_eq!(head.into_contiguous(), whole[..at], "cuts {cuts:?} at {at}");
                    assert_eq!(pieces.into_contiguous(), whole[at..], "cuts {cuts:?} at {at}");
                }
            }
        }
    }
}
