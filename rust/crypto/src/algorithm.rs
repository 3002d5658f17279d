//! The names of what signs and what encapsulates, and the suites that combine them.

use crate::Error;
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
    /// Every one, in the order in which suites name them.
    pub const ALL: &'static [Self] = &[Self::Ed25519, Self::MlDsa65, Self::MlDsa87];

    /// The name used in statements, checkpoints and error texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "Ed25519",
            Self::MlDsa65 => "ML-DSA-65",
            Self::MlDsa87 => "ML-DSA-87",
        }
    }

    /// The algorithm of that name.
    pub fn parse(name: &str) -> Result<Self, Error> {
        Self::ALL.iter().copied().find(|a| a.name() == name).ok_or_else(|| {
            Error::Malformed(format!("`{name}` is not a signature algorithm known here; known are Ed25519, ML-DSA-65 and ML-DSA-87"))
        })
    }

    /// Bytes of a public key.
    pub const fn public_len(self) -> usize {
        match self {
            Self::Ed25519 => 32,
            Self::MlDsa65 => 1952,
            Self::MlDsa87 => 2592,
        }
    }

    /// Bytes of a signature.
    pub const fn signature_len(self) -> usize {
        match self {
            Self::Ed25519 => 64,
            Self::MlDsa65 => 3309,
            Self::MlDsa87 => 4627,
        }
    }

    /// The object identifier, dotted: RFC 8410 and RFC 9881.
    pub const fn oid(self) -> &'static str {
        match self {
            Self::Ed25519 => "1.3.101.112",
            Self::MlDsa65 => "2.16.840.1.101.3.4.3.18",
            Self::MlDsa87 => "2.16.840.1.101.3.4.3.19",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An algorithm that encapsulates keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KemAlgorithm {
    /// ML-KEM-768 (FIPS 203).
    MlKem768,
    /// ML-KEM-1024 (FIPS 203).
    MlKem1024,
}

impl KemAlgorithm {
    /// The name used in certificates and error texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MlKem768 => "ML-KEM-768",
            Self::MlKem1024 => "ML-KEM-1024",
        }
    }

    /// Bytes of an encapsulation key.
    pub const fn public_len(self) -> usize {
        match self {
            Self::MlKem768 => 1184,
            Self::MlKem1024 => 1568,
        }
    }

    /// Bytes of a ciphertext.
    pub const fn ciphertext_len(self) -> usize {
        match self {
            Self::MlKem768 => 1088,
            Self::MlKem1024 => 1568,
        }
    }

    /// The object identifier, dotted: RFC 9935.
    pub const fn oid(self) -> &'static str {
        match self {
            Self::MlKem768 => "2.16.840.1.101.3.4.4.2",
            Self::MlKem1024 => "2.16.840.1.101.3.4.4.3",
        }
    }
}

/// A hash function of the SHA-2 family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hash {
    /// 32 bytes.
    Sha256,
    /// 48 bytes.
    Sha384,
    /// 64 bytes.
    Sha512,
}

impl Hash {
    /// Bytes of a digest.
    pub const fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Never: every digest has bytes.
    pub const fn is_empty(self) -> bool {
        false
    }
}

/// A fixed set of algorithms that are used together; the suite decides exactly who signs. A new one is added here and nowhere else: whoever needs
/// to know something of a suite asks it.
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
    /// Every one.
    pub const ALL: &'static [Self] = &[Self::Standard, Self::Cnsa2];

    /// The name used in configuration and in signed headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Cnsa2 => "cnsa2",
        }
    }

    /// The suite of that name.
    pub fn parse(name: &str) -> Result<Self, Error> {
        Self::ALL.iter().copied().find(|s| s.name() == name).ok_or_else(|| {
            let known: Vec<String> = Self::ALL.iter().map(|suite| format!("`{suite}`")).collect();
            Error::Malformed(format!("`{name}` is not a suite known here; known are {}", known.join(" and ")))
        })
    }

    /// Every algorithm that must have signed, in order; no more and no fewer are accepted.
    pub const fn signers(self) -> &'static [Algorithm] {
        match self {
            Self::Standard => &[Algorithm::Ed25519, Algorithm::MlDsa65],
            Self::Cnsa2 => &[Algorithm::MlDsa87],
        }
    }

    /// What encapsulates keys.
    pub const fn kem(self) -> KemAlgorithm {
        match self {
            Self::Standard => KemAlgorithm::MlKem768,
            Self::Cnsa2 => KemAlgorithm::MlKem1024,
        }
    }

    /// The hash of acts that humans agree to.
    pub const fn acts(self) -> Hash {
        match self {
            Self::Standard => Hash::Sha256,
            Self::Cnsa2 => Hash::Sha384,
        }
    }

    /// The hash of HKDF and of commitments.
    pub const fn kdf(self) -> Hash {
        match self {
            Self::Standard => Hash::Sha256,
            Self::Cnsa2 => Hash::Sha512,
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_is_listed_in_its_place_and_found_by_its_name() {
        for (place, suite) in Suite::ALL.iter().enumerate() {
            assert_eq!((*suite as usize, Suite::parse(suite.name())), (place, Ok(*suite)));
        }
        assert!(Suite::parse("rsa").unwrap_err().to_string().contains("`rsa` is not a suite known here; known are `standard` and `cnsa2`"));
    }
}
