//! All randomness of a history: one sequence that the seed determines (splitmix64).

/// The sequence.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A sequence of its own, so that one part's draws do not shift another's.
    pub(super) fn fork(&mut self) -> Random {
        Random(self.next())
    }

    /// Below `of`, which is not 0.
    pub(super) fn below(&mut self, of: u64) -> u64 {
        self.next() % of
    }

    /// From `low` to below `high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low)
    }

    /// True in so many of a thousand.
    pub(super) fn permille(&mut self, of: u64) -> bool {
        self.below(1000) < of
    }

    /// One of these.
    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Around `mean`, now and then several times it: as times between independent events are.
    pub(super) fn around(&mut self, mean: u64) -> u64 {
        // The logarithm in integers: 53 bits of a uniform draw, so that every machine has the same.
        let bits = (self.next() >> 11) | 1;
        let leading = u64::from(bits.leading_zeros() - 11);
        let rest = (bits << (leading + 11)) >> 32 & 0x7fff_ffff;
        // -ln(u) = leading * ln 2 + about what is left between two powers of two.
        let thousandths = leading * 693 + (0x7fff_ffff - rest) * 693 / 0x7fff_ffff;
        (mean * thousandths / 1000).max(1)
    }

    /// Eight bytes.
    pub(super) fn bytes8(&mut self) -> [u8; 8] {
        self.next().to_be_bytes()
    }

    /// Sixteen bytes.
    pub(super) fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next().to_be_bytes());
        bytes
    }
}
