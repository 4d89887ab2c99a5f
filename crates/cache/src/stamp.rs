//! Points in the sequence of invalidations.

use std::fmt;

/// Bits of a stamp below its shared number.
const LOCAL_BITS: u32 = 24;

/// A point in the sequence of invalidations, by which an entry's birth is compared with what was invalidated.
///
/// It has two parts. The *shared number* is given out by whatever keeps replicas coherent, one for each invalidation.
/// The *local number* counts what this process invalidated since, and starts at zero with each shared number. An
/// invalidation therefore takes effect at once where it is made, and the shared number that it is given later exceeds
/// that of every entry born before, on any replica. Without a shared tier there are local numbers only; after 16 million
/// they run on into the shared part, which is then nobody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(u64);

impl Stamp {
    /// Before every invalidation.
    pub const ZERO: Self = Self(0);

    /// The point right at the shared number `number`, below 2^40.
    #[must_use]
    pub const fn shared(number: u64) -> Self {
        Self(number << LOCAL_BITS)
    }

    /// The shared number. An entry that travels to other replicas carries it as its birth: their local numbers count
    /// other invalidations than ours.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0 >> LOCAL_BITS
    }

    /// Whether an invalidation with this stamp has no shared number yet.
    #[must_use]
    pub const fn is_provisional(self) -> bool {
        self.0 != Self::shared(self.number()).0
    }

    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.number(), self.0 - Self::shared(self.number()).0)
    }
}
