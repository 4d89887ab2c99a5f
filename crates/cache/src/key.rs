//! Content-hash keys: a keyed 128-bit hash over fields that cannot run into each other.
//!
//! # The function
//!
//! Callers choose the bytes that are hashed, and a collision would hand one client another client's result. So the
//! function must be keyed with a secret and must resist a caller who looks for collisions without knowing it; it must
//! also cost about a microsecond for a 12 kB request, need no compiler flag, and be the same on every machine (replicas
//! with one secret may share keys).
//!
//! Each whole kilobyte of a field is shortened to 32 bytes by NH (`nh.rs`), under a key of its own; those digests,
//! what remains of the field and its length are hashed by `HighwayHash`. Callers never see a hash. They may learn from
//! the time an answer takes whether two inputs have the same, which for any two they can name is so with a probability
//! of at most 2^-128, whatever they know of other pairs that differed; that bound is a theorem, which none of the other
//! functions below has. `HighwayHash` on top is a pseudo-random function by design, not by proof; it hashes
//! what is short.
//!
//! Measured on 12,000 bytes, best of many in one run of all, one core of an AMD EPYC, generic x86-64 build (the median of
//! the first is 0.83 µs):
//!
//! | function | time | verdict |
//! |---|---|---|
//! | NH, then `HighwayHash` 128; AVX2 found at run time | 0.66 µs | chosen |
//! | `HighwayHash` 128 (`highway`, AVX2) alone | 0.95 µs | keyed with 256 bits, a pseudo-random function by design |
//! | `HighwayHash` 128, portable code | 5.9 µs | |
//! | SipHash-1-3 128 (`siphasher`) | 1.8 µs | keyed and sound; slower, its margin slimmer |
//! | BLAKE3, keyed (`blake3`) | 5.4 µs | the strongest; 12 kB are too few chunks to fill its lanes |
//! | aHash (`ahash`) | 0.92 µs | 64 bits only, and may change between releases |
//! | XXH3-128 with a secret (`twox-hash`) | 0.16 µs | not made to resist collisions that are looked for |
//!
//! Source of `HighwayHash`: J. Alakuijala, B. Cox, J. Wassenberg, "Fast keyed hash/pseudo-random function using SIMD
//! multiply and permute", 2016.

use crate::nh;
use highway::{HighwayHash, HighwayHasher};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

/// The identity of a result: 128 bits that only the holder of the [`Keyer`]'s secret can compute.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u64; 2]);

impl Key {
    /// The key as a data store names it, the same on every machine.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let [first, second] = self.0.map(u128::from);
        (first << 64 | second).to_be_bytes()
    }

    /// The key that [`to_bytes`](Self::to_bytes) gave these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(bytes);
        Self([(bits >> 64) as u64, bits as u64])
    }

    /// The key whose text is `digits`.
    pub(crate) fn from_hex(digits: &str) -> Option<Self> {
        let lower_case = digits.len() == 32 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let bits = lower_case.then(|| u128::from_str_radix(digits, 16).ok()).flatten()?;
        Some(Self::from_bytes(bits.to_be_bytes()))
    }

    /// 64 of the key's bits, none of which [`Hash`] feeds to a map: they choose flights' shards and spread lifetimes without
    /// correlating with a map's buckets.
    pub(crate) fn spread(self) -> u64 {
        self.0[1]
    }
}

/// Feeds half of the key: it is uniform already, and equality compares the whole.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.to_bytes()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Passes a [`Key`]'s bits through to a map unchanged; hashing a keyed hash again gains nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PassThrough(u64);

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key hashes as one u64");
    }
}

pub(crate) type BuildPassThrough = BuildHasherDefault<PassThrough>;

/// Makes keys under one secret.
///
/// Whoever knows the secret can make two inputs that share a key, so it is drawn at random at start-up, or configured
/// where replicas share a tier. `Debug` does not print it.
#[derive(Clone)]
pub struct Keyer {
    table: Arc<nh::Table>,
    last: highway::Key,
}

impl Keyer {
    /// A keyer under `secret`. The same secret makes the same keys on every machine.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        // As many independent keys as are needed, each under a number of its own.
        let secret = highway::Key(words(secret));
        let derived = |number: usize| {
            let mut hasher = HighwayHasher::new(secret);
            hasher.append(&(number as u64).to_le_bytes());
            hasher.finalize256()
        };
        Self { table: Arc::new(std::array::from_fn(|step| derived(step + 1))), last: highway::Key(derived(0)) }
    }

    /// Tells secrets apart without telling them.
    pub(crate) fn fingerprint(&self) -> [u8; 16] {
        let mut hasher = self.hasher();
        hasher.field(b"fingerprint of the secret");
        hasher.finish().to_bytes()
    }

    /// Starts a key.
    ///
    /// What many keys begin with (model file, provider, variant) is hashed once: keep that hasher and clone it per
    /// request.
    #[must_use]
    pub fn hasher(&self) -> KeyHasher {
        KeyHasher { table: Arc::clone(&self.table), last: HighwayHasher::new(self.last) }
    }
}

fn words(secret: [u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(secret.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

impl fmt::Debug for Keyer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyer").finish_non_exhaustive()
    }
}

/// How many chunks are shortened in one go.
const DIGESTS: usize = 16;

/// Takes the fields of a key one after the other.
///
/// Each field is followed by its length, so the sequence of fields can be read back from the end of what was hashed in
/// one way only: ("ab", "c") and ("a", "bc") differ, and so do ("a") and ("a", ""). A list whose length varies is one
/// field of fixed-width elements, or follows a field with its length.
///
/// # Examples
///
/// ```
/// use volley_cache::Keyer;
///
/// let keyer = Keyer::new([7; 32]);
/// let mut model = keyer.hasher();
/// model.field(b"sha256 of the model file").field(b"cpu").field(b"int8");
///
/// let (first, second) = (b"one body".as_slice(), b" in two chunks".as_slice());
/// let mut chunked = model.clone();
/// chunked.field_in_parts([first, second]);
/// let mut whole = model.clone();
/// whole.field(b"one body in two chunks");
/// assert_eq!(chunked.finish(), whole.finish());
/// ```
#[derive(Clone)]
pub struct KeyHasher {
    table: Arc<nh::Table>,
    last: HighwayHasher,
}

impl KeyHasher {
    /// Takes a field.
    pub fn field(&mut self, bytes: &[u8]) -> &mut Self {
        let (chunks, rest) = bytes.as_chunks();
        self.chunks(chunks);
        self.end(rest, bytes.len())
    }

    /// Takes a field that lies in several pieces, as a request body does in its chunks. Only the bytes count, not where
    /// they are cut.
    pub fn field_in_parts<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) -> &mut Self {
        // What was cut off at the end of the parts so far.
        let mut begun = [0; nh::CHUNK];
        let mut filled = 0;
        let mut length = 0;
        for mut part in parts {
            length += part.len();
            if filled > 0 {
                let (missing, others) = part.split_at(part.len().min(nh::CHUNK - filled));
                begun[filled..][..missing.len()].copy_from_slice(missing);
                filled += missing.len();
                part = others;
                if filled < nh::CHUNK {
                    continue;
                }
                self.chunks(&[begun]);
            }
            let (chunks, rest) = part.as_chunks();
            self.chunks(chunks);
            begun[..rest.len()].copy_from_slice(rest);
            filled = rest.len();
        }
        self.end(&begun[..filled], length)
    }

    /// The key of the fields taken.
    #[must_use]
    pub fn finish(self) -> Key {
        Key(self.last.finalize128())
    }

    fn chunks(&mut self, chunks: &[[u8; nh::CHUNK]]) {
        for chunks in chunks.chunks(DIGESTS) {
            let mut digests = [nh::Digest::default(); DIGESTS];
            nh::digest(&self.table, chunks, &mut digests);
            let words = digests[..chunks.len()].as_flattened();
            let mut bytes = [[0; 8]; DIGESTS * size_of::<nh::Digest>() / 8];
            for (bytes, word) in bytes.iter_mut().zip(words) {
                *bytes = word.to_le_bytes();
            }
            self.last.append(bytes[..words.len()].as_flattened());
        }
    }

    /// The length ends a field, and tells how many digests and bytes came before it.
    fn end(&mut self, rest: &[u8], length: usize) -> &mut Self {
        self.last.append(rest);
        self.last.append(&(length as u64).to_le_bytes());
        self
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHasher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key_of(secret: u8, fields: &[Vec<u8>]) -> Key {
        let mut hasher = Keyer::new([secret; 32]).hasher();
        for field in fields {
            hasher.field(field);
        }
        hasher.finish()
    }

    /// Few letters and short fields, so that different lists often concatenate to the same bytes.
    fn fields() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(0_u8..2, 0..4), 0..4)
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_when_the_lists_of_fields_are(a in fields(), b in fields()) {
            prop_assert_eq!(a == b, key_of(1, &a) == key_of(1, &b));
        }

        #[test]
        fn where_a_field_is_cut_does_not_matter(
            body in prop::collection::vec(any::<u8>(), 0..4000),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let mut hasher = Keyer::new([1; 32]).hasher();
            hasher.field_in_parts(cuts.windows(2).map(|ends| &body[ends[0]..ends[1]]));
            prop_assert_eq!(hasher.finish(), key_of(1, &[body]));
        }

        #[test]
        fn every_flipped_bit_changes_the_key(
            body in prop::collection::vec(any::<u8>(), 1..4000),
            at in any::<prop::sample::Index>(),
            bit in 0_u32..8,
        ) {
            let mut flipped = body.clone();
            flipped[at.index(body.len())] ^= 1 << bit;
            prop_assert_ne!(key_of(1, &[body]), key_of(1, &[flipped]));
        }
    }

    #[test]
    fn bytes_that_look_like_a_length_do_not_imitate_a_boundary() {
        let imitation = [b"ab".as_slice(), &2_u64.to_le_bytes(), b"c"].concat();
        assert_ne!(key_of(1, &[b"ab".to_vec(), b"c".to_vec()]), key_of(1, &[imitation]));
    }

    #[test]
    fn another_secret_makes_other_keys() {
        assert_ne!(key_of(1, &[b"a".to_vec()]), key_of(2, &[b"a".to_vec()]));
    }

    #[test]
    fn keys_stay_the_same_from_build_to_build_and_machine_to_machine() {
        let fields = [b"volley".to_vec(), (0..=255).collect(), (0..3000_u32).map(|n| n as u8).collect()];
        assert_eq!(format!("{:?}", key_of(7, &fields)), "Key(ad8fbeae8821d52e787c175366ba5fb1)");
    }

    #[test]
    fn an_input_that_holds_the_digests_of_another_does_not_imitate_it() {
        let chunk = [5; nh::CHUNK];
        let mut digest = [nh::Digest::default()];
        nh::digest(&Keyer::new([1; 32]).table, &[chunk], &mut digest);
        let imitation = digest[0].map(u64::to_le_bytes).concat();
        assert_ne!(key_of(1, &[chunk.to_vec()]), key_of(1, &[imitation]));
    }

    #[test]
    fn debug_keeps_the_secret() {
        assert_eq!(format!("{:?}", Keyer::new([42; 32])), "Keyer { .. }");
    }
}
