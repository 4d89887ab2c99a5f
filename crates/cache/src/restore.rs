//! Takes entries out of a snapshot, a batch at a time.

use crate::coherence::Coherence;
use crate::domain::Domain;
use crate::key::Keyer;
use crate::local::{Entry, weight};
use crate::snapshot::{self, Index, Listed, MAGIC, VERSION};
use bytes::Bytes;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A batch ends with the entry that reaches this many bytes.
const BATCH_BYTES: u64 = 256 << 10;

/// Takes the entries of a snapshot into the cache, hottest first: a batch of 256 kB or a little more with each step, so
/// that the caller decides on which thread and at what pace.
///
/// The hotter half counts as asked for again, its hotter half twice, so that they outlive what comes new.
///
/// Entries that were computed anew meanwhile stay. Of what was invalidated, before the snapshot or since by whoever the
/// cache has heard from, nothing is taken.
#[derive(Debug)]
pub struct Restore {
    coherence: Coherence,
    keyer: Keyer,
    domains: Vec<Domain>,
    entries: std::vec::IntoIter<Listed>,
    values: BufReader<File>,
    /// Between the snapshot and now.
    aged: Duration,
    progress: Restored,
}

/// How far a restoration has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Entries of the snapshot.
    pub total: usize,
    /// Entries taken.
    pub taken: usize,
    /// Entries left out because they were invalidated, have expired, are there already, or have no room.
    pub left_out: usize,
    /// Entries whose bytes are damaged or missing.
    pub damaged: usize,
}

impl Restore {
    pub(crate) fn open(coherence: &Coherence, keyer: &Keyer, path: &Path) -> Result<Self, RestoreError> {
        // To open a pipe would wait until somebody writes into it.
        if !fs::metadata(path)?.is_file() {
            return Err(RestoreError::NoSnapshot);
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut file = BufReader::new(file);
        let mut head = [0; 32];
        file.read_exact(&mut head).map_err(|_| RestoreError::NoSnapshot)?;
        let (magic, head) = head.split_first_chunk().expect("it is long enough");
        if magic != MAGIC {
            return Err(RestoreError::NoSnapshot);
        }
        if head[0] != VERSION {
            return Err(RestoreError::Version(head[0]));
        }
        if head[1..17] != keyer.fingerprint() {
            return Err(RestoreError::OtherSecret);
        }
        let indexed = u64::from_le_bytes(*head.last_chunk().expect("it is long enough"));
        // Before memory is set aside for it.
        if indexed > length {
            return Err(RestoreError::Damaged);
        }
        let (mut encoded, mut checksum) = (Vec::new(), [0; 16]);
        (&mut file).take(indexed).read_to_end(&mut encoded)?;
        file.read_exact(&mut checksum).map_err(|_| RestoreError::Damaged)?;
        if checksum != snapshot::checksum_of_index(keyer, &encoded) {
            return Err(RestoreError::Damaged);
        }
        let index = Index::decode(&encoded).ok_or(RestoreError::Damaged)?;
        coherence.merge(index.seen, index.invalidated);
        let domain = |(model, version, tags): &(String, String, Vec<String>)| {
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            coherence.domain(model, version, &tags)
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            coherence: coherence.clone(),
            keyer: keyer.clone(),
            domains: index.domains.iter().map(domain).collect(),
            progress: Restored { total: index.entries.len(), ..Restored::default() },
            entries: index.entries.into_iter(),
            values: file,
            aged: now.saturating_sub(index.saved),
        })
    }

    /// Whether the entry was taken; nothing if its bytes are not what they were.
    fn admit(&self, listed: &Listed, value: Bytes, room: &mut u64) -> Option<bool> {
        let key = listed.key;
        if snapshot::checksum_of_value(&self.keyer, key, &value) != listed.checksum {
            return None;
        }
        let (now, weight) = (Instant::now(), weight(value.len()));
        let local = self.coherence.local();
        let ends = listed.life.map(|life| life.saturating_sub(self.aged));
        if ends.is_some_and(|life| life.is_zero()) || local.contains(key) || !local.keeps(weight) || weight > *room {
            return Some(false);
        }
        let as_saved = ends.and_then(|life| now.checked_add(life));
        let as_configured = local.expiry(key, || now);
        let domain = &self.domains[listed.domain as usize];
        let entry = Entry {
            value,
            domain: domain.clone(),
            born: listed.born,
            expires: [as_saved, as_configured].into_iter().flatten().min(),
            // What is not asked for any more loses its place from one snapshot to the next.
            hits: AtomicU32::new(listed.hits / 2),
        };
        Some(self.coherence.keep_if_fresh(key, domain, listed.born, || {
            local.insert(key, entry);
            *room -= weight;
        }))
    }
}

impl Iterator for Restore {
    type Item = Restored;

    fn next(&mut self) -> Option<Restored> {
        let mut bytes = 0;
        let mut room = self.coherence.local().room();
        while bytes < BATCH_BYTES
            && let Some(listed) = self.entries.next()
        {
            let length = u64::from(listed.length);
            // No more than it needs, since it is kept as it is.
            let mut value = Vec::new();
            let _ = value.try_reserve_exact(listed.length as usize);
            // What cannot be read is too short, which its checksum tells.
            let _ = (&mut self.values).take(length).read_to_end(&mut value);
            match self.admit(&listed, value.into(), &mut room) {
                Some(true) => {
                    // The tier lets go first of what came first, but for what was asked for since.
                    let place = self.progress.taken;
                    let asks = [2, 4].into_iter().filter(|part| place < self.progress.total / part);
                    asks.for_each(|_| _ = self.coherence.local().get(listed.key));
                    self.progress.taken += 1;
                }
                Some(false) => self.progress.left_out += 1,
                None => self.progress.damaged += 1,
            }
            bytes += length + 1;
        }
        (bytes > 0).then_some(self.progress)
    }
}

/// Why nothing can be restored. All but the first are reasons to begin with an empty cache.
#[derive(Debug)]
pub enum RestoreError {
    /// The file cannot be opened or read.
    Io(io::Error),
    /// The file is something else.
    NoSnapshot,
    /// The file is of another version of the format.
    Version(u8),
    /// The file was made under another secret: its keys mean nothing here.
    OtherSecret,
    /// The file's index is incomplete, or not what was written.
    Damaged,
}

impl From<io::Error> for RestoreError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the snapshot cannot be read: {error}"),
            Self::NoSnapshot => f.write_str("the file is no snapshot of a cache"),
            Self::Version(version) => {
                write!(f, "the snapshot has version {version} of its format; this program reads version {VERSION}")
            }
            Self::OtherSecret => f.write_str("the snapshot was made under another secret than this cache's"),
            Self::Damaged => f.write_str("the snapshot's index is damaged or incomplete"),
        }
    }
}

impl std::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::NoSnapshot | Self::Version(_) | Self::OtherSecret | Self::Damaged => None,
        }
    }
}
