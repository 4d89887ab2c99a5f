//! Which vector instructions this machine has.

/// A set of instructions that the inner loops are compiled for. The answers are the same bits with each: sums are of
/// integers, and the rest is the same sequence of rounded operations on every element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instructions {
    /// AVX-512 with its eight-bit dot products (VNNI): Intel since Ice Lake, AMD since Zen 4.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// AVX2 with fused multiplications and additions: any x86 server of the last decade.
    #[cfg(target_arch = "x86_64")]
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
        let sets = [
            #[cfg(target_arch = "x86_64")]
            (
                Self::Avx512Vnni,
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("fma"),
            ),
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
            (Self::Portable, true),
        ];
        sets.into_iter().filter_map(|(set, has)| has.then_some(set)).collect()
    }
}
