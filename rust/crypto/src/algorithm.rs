//! The names of what signs and what encapsulates, and the suites that combine them.

use core::fmt;

/// An algorithm that makes signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Algorithm {
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ML-DSA-65 (FIPS 204), pure, empty context.
    MlDsa65,
    /// ML-DSA-87 (FIPS 204), pure, empty context.
    MlDsa87,
}

impl Algorithm {
    /// The name used in statements, checkpoints and error texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "Ed25519",
            Self::MlDsa65 => "ML-DSA-65",
            Self::MlDsa87 => "ML-DSA-87",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fixed set of algorithms that are used together; the suite decides exactly who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Suite {
    /// ML-KEM-768, AES-256-GCM, HKDF-SHA-256; Ed25519 and ML-DSA-65, valid only if both are.
    #[default]
    Standard,
    /// ML-KEM-1024, AES-256-GCM, HKDF-SHA-512; ML-DSA-87.
    Cnsa2,
}

impl Suite {
    /// The name used in configuration and in signed headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Cnsa2 => "cnsa2",
        }
    }

    /// Every algorithm that must have signed, in order; no more and no fewer are accepted.
    pub const fn signers(self) -> &'static [Algorithm] {
        match self {
            Self::Standard => &[Algorithm::Ed25519, Algorithm::MlDsa65],
            Self::Cnsa2 => &[Algorithm::MlDsa87],
        }
    }
}
