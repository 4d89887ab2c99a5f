//! The name under which a request is found again, from the edge to the batch and in the caller's own logs.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::Span;

/// Longest request id accepted from a caller, in bytes.
const LONGEST: usize = 128;

/// A request's id: the caller's own (`x-request-id`) where it is sane, otherwise a new one. `Display` writes it.
///
/// New ids are unique in the process by a counter, and across processes by 64 random bits drawn at start-up. They are no
/// secret and cannot serve as one.
///
/// # Examples
///
/// ```
/// use volley_telemetry::RequestId;
///
/// assert_eq!(RequestId::from_caller(Some(b"order-7f3a")).to_string(), "order-7f3a");
/// assert_ne!(RequestId::from_caller(None).to_string(), RequestId::from_caller(None).to_string());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Source);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Caller(Box<str>),
    /// The count within this process. It becomes text only where it is written.
    Made(u64),
}

impl RequestId {
    /// The id that the caller sent, if it has 1 to 128 bytes, all visible ASCII (`!` to `~`): such an id can go into a
    /// header or a log line without escaping. Otherwise, or if none was sent, a new one.
    #[must_use]
    pub fn from_caller(sent: Option<&[u8]>) -> Self {
        let sane = sent
            .filter(|id| (1..=LONGEST).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic))
            .and_then(|id| str::from_utf8(id).ok());
        match sane {
            Some(id) => Self(Source::Caller(id.into())),
            None => Self::new(),
        }
    }

    fn new() -> Self {
        /// Taken by whoever makes an id; only uniqueness counts, so accesses are relaxed.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self(Source::Made(COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The span in whose scope everything logged carries this id, as its field `request_id`.
    ///
    /// The span has the level of an error, so that a filter which lets anything through keeps the ids.
    #[must_use]
    pub fn span(&self) -> Span {
        tracing::error_span!("request", request_id = %self)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The standard library seeds its hash maps from the operating system's random numbers.
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("request id"));
        match &self.0 {
            Source::Caller(id) => f.write_str(id),
            // By hand: `write!` takes ten times as long, and most responses carry one.
            Source::Made(count) => {
                let mut text = [b'-'; 33];
                digits(*PROCESS, &mut text[..16]);
                let length = digits_of(*count);
                digits(*count, &mut text[17..17 + length]);
                f.write_str(str::from_utf8(&text[..17 + length]).expect("digits are text"))
            }
        }
    }
}

/// How many hexadecimal digits `number` has.
fn digits_of(number: u64) -> usize {
    (16 - number.leading_zeros() as usize / 4).max(1)
}

/// Writes the last digits of `number`, hexadecimal, as many as there is room for.
fn digits(number: u64, room: &mut [u8]) {
    let mut left = number;
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(left & 0xf) as usize];
        left >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn whatever_the_caller_sends_the_id_is_short_and_visible(sent in prop::collection::vec(any::<u8>(), 0..300)) {
            let id = RequestId::from_caller(Some(&sent)).to_string();
            prop_assert!((1..=LONGEST).contains(&id.len()));
            prop_assert!(id.bytes().all(|byte| (b'!'..=b'~').contains(&byte)));
        }

        #[test]
        fn a_sane_id_is_taken_as_it_is(sent in "[!-~]{1,128}") {
            prop_assert_eq!(RequestId::from_caller(Some(sent.as_bytes())).to_string(), sent);
        }

        #[test]
        fn one_bad_byte_or_too_many_good_ones_make_a_new_id(
            sent in "[!-~]{0,127}",
            bad in prop_oneof![0_u8..=b' ', 0x7f_u8..=255],
            at in any::<prop::sample::Index>(),
            beyond in "[!-~]{129,200}",
        ) {
            let mut tainted = sent.into_bytes();
            tainted.insert(at.index(tainted.len() + 1), bad);
            for refused in [tainted, beyond.into_bytes()] {
                let id = RequestId::from_caller(Some(&refused)).to_string();
                prop_assert_ne!(id.into_bytes(), refused);
            }
        }
    }

    #[test]
    fn new_ids_differ() {
        let ids: HashSet<_> = (0..1000).map(|_| RequestId::from_caller(None).to_string()).collect();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn a_new_id_is_two_hexadecimal_numbers() {
        for count in [0, 1, 15, 16, 0xabc, u64::MAX] {
            let id = RequestId(Source::Made(count)).to_string();
            let (process, number) = id.split_once('-').unwrap();
            assert_eq!((process.len(), number), (16, &*format!("{count:x}")));
            assert!(u64::from_str_radix(process, 16).is_ok(), "{id}");
        }
    }

    #[test]
    fn an_empty_id_counts_as_none() {
        assert!(!RequestId::from_caller(Some(b"")).to_string().is_empty());
    }
}
