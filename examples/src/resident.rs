//! Whether a process keeps to the memory that it has.

use std::fmt;

/// What a process had in memory, time after time.
#[derive(Debug, Default)]
pub struct Resident {
    bytes: Vec<u64>,
}

impl Resident {
    /// Adds how many bytes it has by now.
    pub fn push(&mut self, bytes: u64) {
        self.bytes.push(bytes);
    }

    /// By how much of itself it grew over the last half of the times: the slope of the line through them. The first half is
    /// left for caches to fill and for the allocator to settle. 0 where there are too few to tell.
    #[must_use]
    pub fn growth(&self) -> f64 {
        let half = &self.bytes[self.bytes.len() / 2..];
        if half.len() < 2 {
            return 0.0;
        }
        let count = half.len() as f64;
        let (middle, mean) = ((count - 1.0) / 2.0, half.iter().map(|&bytes| bytes as f64).sum::<f64>() / count);
        let (mut products, mut squares) = (0.0, 0.0);
        for (time, &bytes) in half.iter().enumerate() {
            let x = time as f64 - middle;
            products += x * (bytes as f64 - mean);
            squares += x * x;
        }
        products / squares * count / mean
    }
}

/// The first, and after each tenth.
impl fmt::Display for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.bytes.len().saturating_sub(1);
        for tenth in 0..=10 {
            let bytes = self.bytes.get(last * tenth / 10).map_or(f64::NAN, |&bytes| bytes as f64);
            write!(f, "{}{:.1}", if tenth == 0 { "" } else { ", " }, bytes / 1e6)?;
        }
        f.write_str(" MB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_in_the_first_half_is_no_growth() {
        let of = |bytes: &dyn Fn(u64) -> u64| {
            let mut resident = Resident::default();
            (0..1000).for_each(|time| resident.push(bytes(time)));
            resident
        };
        let settled = of(&|time| 1_000_000 + 1000 * time.min(499));
        assert!(settled.growth().abs() < 1e-4, "{}", settled.growth());
        assert!(settled.to_string().starts_with("1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.5,"), "{settled}");
        // From 1.5 to 2.0 MB, of 1.75 in the middle.
        let grows = of(&|time| 1_000_000 + 1000 * time);
        assert!((grows.growth() - 0.5 / 1.75).abs() < 1e-3, "{}", grows.growth());
        let mut short = Resident::default();
        short.push(1);
        assert_eq!(short.growth(), 0.0);
    }
}
