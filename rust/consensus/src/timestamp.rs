//! A point in hybrid logical time, in one machine word.

use core::fmt;

/// Microseconds since the Unix epoch in the upper 52 bits, a logical counter in the lower 12.
///
/// Ordered as the word is. Source: Kulkarni et al., "Logical Physical Clocks" (OPODIS 2014).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// How many low bits count logical steps within one microsecond.
    pub const LOGICAL_BITS: u32 = 12;

    /// From the raw word, as stored in records and rows.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The first instant of a microsecond since the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros << Self::LOGICAL_BITS)
    }

    /// The raw word.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> u64 {
        self.0 >> Self::LOGICAL_BITS
    }

    /// The logical counter within the microsecond.
    pub const fn logical(self) -> u16 {
        (self.0 & ((1 << Self::LOGICAL_BITS) - 1)) as u16
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}+{}", self.micros() / 1_000_000, self.micros() % 1_000_000, self.logical())
    }
}
