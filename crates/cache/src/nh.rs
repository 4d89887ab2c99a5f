//! NH, the universal hash that shortens long inputs before they are hashed with more care.
//!
//! For a random key, two different chunks have the same digest with a probability of at most 2^-128: 2^-32 for each of
//! four passes, whose keys overlap (the Toeplitz construction).
//!
//! Source: J. Black, S. Halevi, H. Krawczyk, T. Krovetz, P. Rogaway, "UMAC: Fast and Secure Message Authentication",
//! 1999, theorems 1 and 2. A pass here moves along the key by a whole step rather than by one pair of words, so that
//! each piece of the key is loaded once; of the steps in which two chunks differ, the last then plays the part that the
//! last pair plays there.

/// Bytes of a chunk.
pub(crate) const CHUNK: usize = 1024;

const PASSES: usize = 4;

/// Pairs of words in a step: one vector of 256 bits, half of one of 512.
const LANES: usize = 4;

/// Steps of a chunk.
const STEPS: usize = CHUNK / 8 / LANES;

/// The key: one step longer than a chunk for each pass after the first. Each 64 bits are a pair of 32-bit words.
pub(crate) type Table = [[u64; LANES]; STEPS + PASSES - 1];

/// A chunk's digest: the sums of the passes.
pub(crate) type Digest = [u64; PASSES];

/// Writes the digest of each chunk, the same on every machine.
pub(crate) fn digest(table: &Table, chunks: &[[u8; CHUNK]], digests: &mut [Digest]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(vectors) = Vectors::of_this_processor() {
        return vectors.digest(table, chunks, digests);
    }
    for (digest, chunk) in digests.iter_mut().zip(chunks) {
        *digest = portable(table, chunk);
    }
}

/// Each pair of words of the chunk plus that of the key, without carry from one to the other; multiplied; and summed.
fn portable(table: &Table, chunk: &[u8; CHUNK]) -> Digest {
    let mut sums = [[0_u64; LANES]; PASSES];
    for (step, bytes) in chunk.as_chunks().0.iter().enumerate() {
        let pairs = pairs(bytes);
        for (sums, key) in sums.iter_mut().zip(&table[step..]) {
            for ((sum, pair), key) in sums.iter_mut().zip(pairs).zip(key) {
                let low = (pair as u32).wrapping_add(*key as u32);
                let high = ((pair >> 32) as u32).wrapping_add((*key >> 32) as u32);
                *sum = sum.wrapping_add(u64::from(low) * u64::from(high));
            }
        }
    }
    sums.map(|lanes| lanes.into_iter().fold(0, u64::wrapping_add))
}

fn pairs(step: &[u8; 8 * LANES]) -> [u64; LANES] {
    let mut pairs = [0; LANES];
    for (pair, bytes) in pairs.iter_mut().zip(step.as_chunks().0) {
        *pair = u64::from_le_bytes(*bytes);
    }
    pairs
}

/// The widest vectors of a processor.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
enum Vectors {
    Avx2,
    Avx512,
}

#[cfg(target_arch = "x86_64")]
impl Vectors {
    /// The widest first.
    const ALL: [Self; 2] = [Self::Avx512, Self::Avx2];

    /// The first of [`ALL`](Self::ALL) that this processor has.
    fn of_this_processor() -> Option<Self> {
        Self::ALL.into_iter().find(|vectors| vectors.are_there())
    }

    fn are_there(self) -> bool {
        match self {
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2"),
            Self::Avx512 => std::arch::is_x86_feature_detected!("avx512f"),
        }
    }

    /// As [`portable`], for each chunk.
    fn digest(self, table: &Table, chunks: &[[u8; CHUNK]], digests: &mut [Digest]) {
        assert!(self.are_there());
        #[expect(unsafe_code, reason = "the compiler cannot see that the processor was asked")]
        // SAFETY: each function asks for nothing but the vectors that it is named after, which are there.
        unsafe {
            match self {
                Self::Avx2 => avx2::digest(table, chunks, digests),
                Self::Avx512 => avx512::digest(table, chunks, digests),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{CHUNK, Digest, LANES, PASSES, Table, pairs};
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi32, _mm512_add_epi64, _mm512_mul_epu32, _mm512_reduce_add_epi64, _mm512_set_epi64,
        _mm512_setzero_si512, _mm512_srli_epi64,
    };

    #[target_feature(enable = "avx512f")]
    pub(super) fn digest(table: &Table, chunks: &[[u8; CHUNK]], digests: &mut [Digest]) {
        for (digest, chunk) in digests.iter_mut().zip(chunks) {
            *digest = sums(table, chunk);
        }
    }

    /// As [`super::portable`], two steps at once.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn sums(table: &Table, chunk: &[u8; CHUNK]) -> Digest {
        let mut sums = [_mm512_setzero_si512(); PASSES];
        // Passes 2 and 3 are where passes 0 and 1 will be next.
        let (even, odd) = (table.as_chunks().0, table[1..].as_chunks().0);
        let mut keys = [vector(even[0]), vector(odd[0])];
        for ((two, &even), &odd) in chunk.as_chunks().0.chunks_exact(2).zip(&even[1..]).zip(&odd[1..]) {
            let pairs = vector([pairs(&two[0]), pairs(&two[1])]);
            let next = [vector(even), vector(odd)];
            for (sum, key) in sums.iter_mut().zip([keys[0], keys[1], next[0], next[1]]) {
                let keyed = _mm512_add_epi32(pairs, key);
                let product = _mm512_mul_epu32(keyed, _mm512_srli_epi64::<32>(keyed));
                *sum = _mm512_add_epi64(*sum, product);
            }
            keys = next;
        }
        sums.map(|sum| _mm512_reduce_add_epi64(sum).cast_unsigned())
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn vector(steps: [[u64; LANES]; 2]) -> __m512i {
        let [[a, b, c, d], [e, f, g, h]] = steps;
        let [a, b, c, d, e, f, g, h] = [a, b, c, d, e, f, g, h].map(u64::cast_signed);
        _mm512_set_epi64(h, g, f, e, d, c, b, a)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{CHUNK, Digest, LANES, PASSES, Table, pairs};
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_add_epi64, _mm256_extract_epi64, _mm256_mul_epu32, _mm256_set_epi64x,
        _mm256_setzero_si256, _mm256_srli_epi64,
    };

    #[target_feature(enable = "avx2")]
    pub(super) fn digest(table: &Table, chunks: &[[u8; CHUNK]], digests: &mut [Digest]) {
        for (digest, chunk) in digests.iter_mut().zip(chunks) {
            *digest = sums(table, chunk);
        }
    }

    /// As [`super::portable`].
    #[target_feature(enable = "avx2")]
    #[inline]
    fn sums(table: &Table, chunk: &[u8; CHUNK]) -> Digest {
        let zero = _mm256_setzero_si256();
        let mut sums = [zero; PASSES];
        // A ring: in step `n`, the key of pass `p` is that of step `n + p`.
        let mut keys = [vector(table[0]), vector(table[1]), vector(table[2]), zero];
        let (fours, following) = (chunk.as_chunks::<{ PASSES * 8 * LANES }>().0, table[PASSES - 1..].as_chunks().0);
        for (four, following) in fours.iter().zip(following) {
            let following: &[_; PASSES] = following;
            for (step, bytes) in four.as_chunks().0.iter().enumerate() {
                keys[(step + PASSES - 1) % PASSES] = vector(following[step]);
                let pairs = vector(pairs(bytes));
                for (pass, sum) in sums.iter_mut().enumerate() {
                    let keyed = _mm256_add_epi32(pairs, keys[(step + pass) % PASSES]);
                    let product = _mm256_mul_epu32(keyed, _mm256_srli_epi64::<32>(keyed));
                    *sum = _mm256_add_epi64(*sum, product);
                }
            }
        }
        sums.map(|sum| sum_of_lanes(sum))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn vector(lanes: [u64; LANES]) -> __m256i {
        let [a, b, c, d] = lanes.map(u64::cast_signed);
        _mm256_set_epi64x(d, c, b, a)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn sum_of_lanes(sum: __m256i) -> u64 {
        let lanes = [
            _mm256_extract_epi64::<0>(sum),
            _mm256_extract_epi64::<1>(sum),
            _mm256_extract_epi64::<2>(sum),
            _mm256_extract_epi64::<3>(sum),
        ];
        lanes.into_iter().map(i64::cast_unsigned).fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A key in which words overflow.
    fn table() -> Table {
        let mut word = 1_u64;
        [[(); LANES]; STEPS + PASSES - 1].map(|step| {
            step.map(|()| {
                word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                word
            })
        })
    }

    fn digest_of(chunk: &[u8; CHUNK]) -> Digest {
        let mut digests = [Digest::default()];
        digest(&table(), &[*chunk], &mut digests);
        digests[0]
    }

    /// Bytes without pattern that begin somewhere in a long sequence, or many times the same.
    fn chunk() -> impl Strategy<Value = [u8; CHUNK]> {
        let scattered = any::<u64>().prop_map(|seed| {
            let mut word = seed;
            [(); CHUNK].map(|()| {
                word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (word >> 56) as u8
            })
        });
        prop_oneof![scattered, any::<u8>().prop_map(|byte| [byte; CHUNK])]
    }

    proptest! {
        #[test]
        fn the_digest_is_the_same_with_and_without_vectors(chunk in chunk()) {
            prop_assert_eq!(digest_of(&chunk), portable(&table(), &chunk));
            #[cfg(target_arch = "x86_64")]
            for vectors in Vectors::ALL.into_iter().filter(|vectors| vectors.are_there()) {
                let mut digests = [Digest::default()];
                vectors.digest(&table(), &[chunk], &mut digests);
                prop_assert_eq!(digests[0], portable(&table(), &chunk), "{:?}", vectors);
            }
        }

        #[test]
        fn every_flipped_bit_changes_every_part_of_the_digest(chunk in chunk(), at in 0..CHUNK, bit in 0_u32..8) {
            let mut flipped = chunk;
            flipped[at] ^= 1 << bit;
            for (before, after) in digest_of(&chunk).into_iter().zip(digest_of(&flipped)) {
                prop_assert_ne!(before, after);
            }
        }
    }

    #[test]
    fn the_digest_is_the_sum_of_products_that_the_paper_gives() {
        let mut chunk = [0; CHUNK];
        chunk[0] = 3;
        chunk[4] = 5;
        let mut table = [[0; LANES]; STEPS + PASSES - 1];
        table[2][0] = 10 | 20 << 32;
        // Only pass 2 sees that part of the key in the first step; in the third step pass 0 does, and so on.
        let elsewhere = 10 * 20;
        let expected = [15 + elsewhere, 15 + elsewhere, (3 + 10) * (5 + 20), 15];
        assert_eq!(portable(&table, &chunk), expected);
    }
}
