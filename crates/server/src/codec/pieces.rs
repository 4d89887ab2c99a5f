//! Bytes as they came from the network: one piece nearly always, several when a body arrived in several reads.

use bytes::{Bytes, BytesMut};

/// A run of bytes in one or more pieces. Splitting shares; nothing is copied until the batch buffer is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pieces {
    first: Bytes,
    rest: Vec<Bytes>,
}

impl Pieces {
    /// Adds a piece at the end.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.rest.push(piece);
        }
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
            let taken = Self { first: self.first.split_to(count), rest: Vec::new() };
            if self.first.is_empty() && !self.rest.is_empty() {
                self.first = self.rest.remove(0);
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
        Self { first, rest: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting_anywhere_keeps_every_byte_in_order() {
        for cuts in [&[][..], &[3], &[1, 4], &[2, 3, 5]] {
            for at in 0..=8 {
                let whole = Bytes::from_static(b"abcdefgh");
                let mut pieces = Pieces::default();
                let mut start = 0;
                for &cut in cuts.iter().chain([&8]) {
                    pieces.push(whole.slice(start..cut));
                    start = cut;
                }
                let head = pieces.split_to(at);
                assert_eq!((head.len(), pieces.len()), (at, 8 - at));
                assert_eq!(head.into_contiguous(), whole[..at], "cuts {cuts:?} at {at}");
                assert_eq!(pieces.into_contiguous(), whole[at..], "cuts {cuts:?} at {at}");
            }
        }
    }
}
