//! Which vector instructions this machine has.

/// A set of instructions that the inner loops are compiled for. The answers are the same bits with each: sums are of
/// integers, and the rest is the same sequence of rounded operations on every element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instructions {
    /// AVX-512 with its eight-bit dot products (VNNI): Intel since Ice Lake, AMD since Zen 4.
    Avx512Vnni,
    /// AVX2: any x86 server of the last decade.
    Avx2,
    /// Whatever the compiler makes of plain code for the target it builds for.
    Portable,
}

impl Instructions {
    /// The fastest set that this machine has.
    pub(super) fn detect() -> Self {
        Self::available()[0]
    }

    /// Every set that this machine has, fastest first.
    pub(super) fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let vnni = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512f");
            if vnni && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
                found.push(Self::Avx512Vnni);
            }
            if is_x86_feature_detected!("avx2") {
                found.push(Self::Avx2);
            }
        }
        found.push(Self::Portable);
        found
    }
}
