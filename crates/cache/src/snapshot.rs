//! The hottest entries in a file, for the next process to begin with.
//!
//! ```text
//! "VOLLEYC" version:u8 | fingerprint of the secret:16 | length of the index:u64 | index | checksum:16 | values
//! ```
//!
//! The index has what was invalidated, the domains, and for each entry, hottest first, all but its value: where that
//! lies follows from the lengths before it. Numbers are little-endian, texts follow their lengths. The index's checksum
//! covers the entries' checksums and thereby the whole file; each value is still believed or not for itself. Checksums
//! are keyed: what does not come from a process with the same secret is not taken for an answer.

use crate::coherence::Coherence;
use crate::domain::Domain;
use crate::generations::Generations;
use crate::key::{Key, Keyer};
use crate::local::Entry;
use crate::scope::Scope;
use crate::stamp::Stamp;
use std::cmp::Reverse;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) const MAGIC: &[u8; 7] = b"VOLLEYC";
pub(crate) const VERSION: u8 = 1;

/// A life without end, in milliseconds.
const FOR_EVER: u64 = u64::MAX;

/// What a snapshot came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Saved {
    /// Entries written.
    pub entries: usize,
    /// Bytes of the file.
    pub bytes: u64,
}

/// All of a snapshot but the values.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Index {
    /// Since the Unix epoch.
    pub(crate) saved: Duration,
    pub(crate) seen: Stamp,
    pub(crate) invalidated: Vec<(Scope, Stamp)>,
    /// Model, version and tags.
    pub(crate) domains: Vec<(String, String, Vec<String>)>,
    pub(crate) entries: Vec<Listed>,
}

/// An entry, as the index has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: Key,
    /// Which of the index's domains.
    pub(crate) domain: u32,
    pub(crate) born: Stamp,
    /// How much longer it may be served.
    pub(crate) life: Option<Duration>,
    pub(crate) hits: u32,
    pub(crate) length: u32,
    pub(crate) checksum: [u8; 16],
}

/// So many entries are taken hold of before a pause.
const HELD_AT_ONCE: usize = 256;

/// What a cache held at a time. It keeps the values in memory.
#[derive(Debug)]
#[must_use]
pub struct Snapshot {
    generations: Generations,
    entries: Vec<(Key, Arc<Entry>)>,
}

impl Snapshot {
    pub(crate) fn take(coherence: &Coherence, mut pause: impl FnMut()) -> Self {
        let mut entries = Vec::new();
        for held in coherence.local().iter() {
            entries.push(held);
            if entries.len().is_multiple_of(HELD_AT_ONCE) {
                pause();
            }
        }
        // After all entries: whatever was invalidated since one was made is known, and none is younger.
        let generations = coherence.generations();
        Self { generations, entries }
    }

    /// Writes the entries that were asked for most often, in place of the file at `path` once all is written; a crash
    /// leaves the one before. The file takes `max_bytes` at most.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; one that was there before stays.
    pub fn save(self, keyer: &Keyer, path: &Path, max_bytes: u64) -> io::Result<Saved> {
        let (index, entries) = choose(self, keyer, max_bytes);
        let encoded = index.encode();
        let bytes = 32 + encoded.len() as u64 + 16 + entries.iter().map(|entry| entry.value.len() as u64).sum::<u64>();
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        // One that was left behind, or whatever else has its name: what a link there leads to is not written over.
        let _ = fs::remove_file(&unfinished);
        let written = File::create_new(&unfinished).and_then(|file| {
            let mut file = BufWriter::new(file);
            file.write_all(MAGIC)?;
            file.write_all(&[VERSION])?;
            file.write_all(&keyer.fingerprint())?;
            file.write_all(&(encoded.len() as u64).to_le_bytes())?;
            file.write_all(&encoded)?;
            file.write_all(&checksum_of_index(keyer, &encoded))?;
            entries.iter().try_for_each(|entry| file.write_all(&entry.value))?;
            file.into_inner()?.sync_all()
        });
        written.and_then(|()| fs::rename(&unfinished, path)).inspect_err(|_| _ = fs::remove_file(&unfinished))?;
        Ok(Saved { entries: entries.len(), bytes })
    }
}

fn choose(snapshot: Snapshot, keyer: &Keyer, max_bytes: u64) -> (Index, Vec<Arc<Entry>>) {
    let now = Instant::now();
    let Snapshot { generations, entries } = snapshot;
    let is_served = |entry: &Entry| entry.is_fresh(&entry.domain) && entry.expires.is_none_or(|expires| expires > now);
    let mut found: Vec<(u32, Key, Arc<Entry>)> = entries
        .into_iter()
        .filter(|(_, entry)| is_served(entry))
        .map(|(key, entry)| (entry.hits.load(Ordering::Relaxed), key, entry))
        .collect();
    found.sort_unstable_by_key(|(hits, key, _)| (Reverse(*hits), key.to_bytes()));

    let mut index = Index::without_entries(&generations);
    let mut domains: Vec<Domain> = Vec::new();
    let mut entries = Vec::new();
    // Before each entry: what the file takes with what was chosen so far.
    let mut bytes = 32 + index.encode().len() as u64 + 16;
    for (hits, key, entry) in found {
        let place = domains.iter().position(|domain| domain.is_made_of_the_same(&entry.domain));
        let names = (entry.domain.model().to_owned(), entry.domain.version().to_owned());
        let named = (names.0, names.1, entry.domain.tags().map(str::to_owned).collect::<Vec<_>>());
        let mut added = LISTED as u64 + entry.value.len() as u64;
        if place.is_none() {
            added += named_length(&named) as u64;
        }
        let Ok(length) = u32::try_from(entry.value.len()) else { continue };
        if bytes + added > max_bytes {
            continue;
        }
        bytes += added;
        let domain = place.unwrap_or_else(|| {
            domains.push(entry.domain.clone());
            index.domains.push(named);
            domains.len() - 1
        });
        index.entries.push(Listed {
            key,
            domain: domain as u32,
            born: entry.born,
            life: entry.expires.map(|expires| expires.saturating_duration_since(now)),
            hits,
            length,
            checksum: checksum_of_value(keyer, key, &entry.value),
        });
        entries.push(entry);
    }
    (index, entries)
}

pub(crate) fn checksum_of_index(keyer: &Keyer, index: &[u8]) -> [u8; 16] {
    let mut hasher = keyer.hasher();
    hasher.field(b"index of a snapshot").field(index);
    hasher.finish().to_bytes()
}

pub(crate) fn checksum_of_value(keyer: &Keyer, key: Key, value: &[u8]) -> [u8; 16] {
    let mut hasher = keyer.hasher();
    hasher.field(b"value in a snapshot").field(&key.to_bytes()).field(value);
    hasher.finish().to_bytes()
}

/// Bytes of an entry in the index.
const LISTED: usize = 16 + 4 + 8 + 8 + 4 + 4 + 16;

fn named_length((model, version, tags): &(String, String, Vec<String>)) -> usize {
    12 + model.len() + version.len() + tags.iter().map(|tag| 4 + tag.len()).sum::<usize>()
}

impl Index {
    fn without_entries(generations: &Generations) -> Self {
        Self {
            saved: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            seen: generations.seen(),
            invalidated: generations.iter().collect(),
            domains: Vec::new(),
            entries: Vec::new(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(millis(self.saved).to_le_bytes());
        bytes.extend(self.seen.bits().to_le_bytes());
        put_count(&mut bytes, self.invalidated.len());
        for (scope, stamp) in &self.invalidated {
            put_text(&mut bytes, &scope.to_string());
            bytes.extend(stamp.bits().to_le_bytes());
        }
        put_count(&mut bytes, self.domains.len());
        for (model, version, tags) in &self.domains {
            put_text(&mut bytes, model);
            put_text(&mut bytes, version);
            put_count(&mut bytes, tags.len());
            tags.iter().for_each(|tag| put_text(&mut bytes, tag));
        }
        put_count(&mut bytes, self.entries.len());
        for Listed { key, domain, born, life, hits, length, checksum } in &self.entries {
            bytes.extend(key.to_bytes());
            bytes.extend(domain.to_le_bytes());
            bytes.extend(born.bits().to_le_bytes());
            bytes.extend(life.map_or(FOR_EVER, millis).to_le_bytes());
            bytes.extend(hits.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(checksum);
        }
        bytes
    }

    /// Nothing if the bytes are not what [`encode`](Self::encode) makes of an index.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes);
        let mut index = Self {
            saved: Duration::from_millis(rest.u64()?),
            seen: Stamp::from_bits(rest.u64()?),
            invalidated: Vec::new(),
            domains: Vec::new(),
            entries: Vec::new(),
        };
        for _ in 0..rest.u32()? {
            index.invalidated.push((rest.text()?.parse().ok()?, Stamp::from_bits(rest.u64()?)));
        }
        for _ in 0..rest.u32()? {
            let (model, version, mut tags) = (rest.text()?, rest.text()?, Vec::new());
            for _ in 0..rest.u32()? {
                tags.push(rest.text()?.to_owned());
            }
            index.domains.push((model.to_owned(), version.to_owned(), tags));
        }
        for _ in 0..rest.u32()? {
            let listed = Listed {
                key: Key::from_bytes(rest.take()?),
                domain: rest.u32()?,
                born: Stamp::from_bits(rest.u64()?),
                life: Some(rest.u64()?).filter(|life| *life != FOR_EVER).map(Duration::from_millis),
                hits: rest.u32()?,
                length: rest.u32()?,
                checksum: rest.take()?,
            };
            index.domains.get(listed.domain as usize)?;
            index.entries.push(listed);
        }
        rest.0.is_empty().then_some(index)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(FOR_EVER - 1)
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend(u32::try_from(count).expect("fewer than 4 billion").to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_count(bytes, text.len());
    bytes.extend(text.as_bytes());
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        str::from_utf8(taken).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::tests::scope;
    use proptest::prelude::*;

    fn stamp() -> impl Strategy<Value = Stamp> {
        any::<u64>().prop_map(Stamp::from_bits)
    }

    prop_compose! {
        fn listed(domains: u32)(
            (key, checksum) in any::<([u8; 16], [u8; 16])>(),
            domain in 0..domains,
            born in stamp(),
            life in prop::option::of(0_u64..1 << 40),
            (hits, length) in any::<(u32, u32)>(),
        ) -> Listed {
            let life = life.map(Duration::from_millis);
            Listed { key: Key::from_bytes(key), domain, born, life, hits, length, checksum }
        }
    }

    prop_compose! {
        fn index()(
            saved in 0_u64..1 << 40,
            seen in stamp(),
            invalidated in prop::collection::vec((scope(), stamp()), 0..4),
            domains in prop::collection::vec((".{0,3}", ".{0,3}", prop::collection::vec(".{0,3}", 0..3)), 3),
            entries in prop::collection::vec(listed(3), 0..5),
        ) -> Index {
            Index { saved: Duration::from_millis(saved), seen, invalidated, domains, entries }
        }
    }

    proptest! {
        #[test]
        fn an_index_is_read_back_as_it_was_written(index in index()) {
            prop_assert_eq!(Index::decode(&index.encode()), Some(index));
        }

        #[test]
        fn bytes_of_any_kind_are_read_without_a_panic(
            index in index(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            noise in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let whole = index.encode();
            let mut changed = whole.clone();
            let at = at.index(changed.len());
            changed[at] = byte;
            let _ = Index::decode(&changed);
            let _ = Index::decode(&noise);
            prop_assert_eq!(Index::decode(&whole[..at]), None, "a part of an index is none");
        }
    }
}
