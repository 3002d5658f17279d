//! Who does the arithmetic: a plain struct of trait objects, filled in by two libraries that give the same bytes.

mod aws_lc;
mod derivation;
mod rustcrypto;
mod self_test;

#[cfg(test)]
pub(crate) use rustcrypto::expand_kem;

use crate::{Algorithm, Error, Hash, KemAlgorithm, Secret};
use std::sync::OnceLock;

/// A library's primitives.
pub struct Provider {
    /// `aws-lc` or `rustcrypto`.
    pub name: &'static str,
    /// Signatures.
    pub signing: &'static dyn Signing,
    /// Key encapsulation.
    pub kem: &'static dyn Kem,
    /// Authenticated encryption and key wrap under 256-bit keys.
    pub symmetric: &'static dyn Symmetric,
    /// Hashes and what is derived with them.
    pub derivation: &'static dyn Derivation,
    /// Random bytes.
    pub random: &'static dyn Random,
}

impl core::fmt::Debug for Provider {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Provider({})", self.name)
    }
}

/// Makes signers and verifiers; both are kept expanded, since expanding costs more than signing.
pub trait Signing: Send + Sync {
    /// A signer from its 32-byte seed.
    fn signer(&self, algorithm: Algorithm, seed: &Secret<32>) -> Result<Box<dyn Signer>, Error>;
    /// A verifier from a public key in the algorithm's own encoding.
    fn verifier(&self, algorithm: Algorithm, public: &[u8]) -> Result<Box<dyn Verifier>, Error>;
}

/// Signs with one key.
pub trait Signer: Send + Sync {
    /// Appends the signature over `message` to `out`.
    fn sign_into(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Error>;
    /// The public key.
    fn public(&self) -> &[u8];
}

/// Verifies under one key.
pub trait Verifier: Send + Sync {
    /// True if `signature` is valid over `message`.
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool;
}

/// Makes encapsulators and decapsulators.
pub trait Kem: Send + Sync {
    /// A decapsulator from its 64-byte seed (FIPS 203 `d || z`).
    fn decapsulator(&self, algorithm: KemAlgorithm, seed: &Secret<64>) -> Result<Box<dyn Decapsulator>, Error>;
    /// An encapsulator from a public key.
    fn encapsulator(&self, algorithm: KemAlgorithm, public: &[u8]) -> Result<Box<dyn Encapsulator>, Error>;
}

/// Takes shared secrets out of ciphertexts with one key.
pub trait Decapsulator: Send + Sync {
    /// The shared secret; a ciphertext made for another key gives an unrelated one, not an error.
    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret<32>, Error>;
    /// The public key.
    fn public(&self) -> &[u8];
}

/// Makes shared secrets for one key.
pub trait Encapsulator: Send + Sync {
    /// Appends a fresh ciphertext to `out` and returns the shared secret in it.
    fn encapsulate_into(&self, out: &mut Vec<u8>) -> Result<Secret<32>, Error>;
}

/// AES-256-GCM and AES-256 key wrap (RFC 3394).
pub trait Symmetric: Send + Sync {
    /// Encrypts in place and returns the tag. A nonce is used once under a key.
    fn seal(&self, key: &Secret<32>, nonce: &[u8; 12], aad: &[u8], in_out: &mut [u8]) -> Result<[u8; 16], Error>;
    /// Decrypts in place; on an error `in_out` holds nothing of use.
    fn open(&self, key: &Secret<32>, nonce: &[u8; 12], aad: &[u8], in_out: &mut [u8], tag: &[u8; 16]) -> Result<(), Error>;
    /// Wraps a 256-bit key under another.
    fn wrap(&self, kek: &Secret<32>, key: &Secret<32>) -> Result<[u8; 40], Error>;
    /// Unwraps it.
    fn unwrap(&self, kek: &Secret<32>, wrapped: &[u8; 40]) -> Result<Secret<32>, Error>;
}

/// SHA-2 and HKDF (RFC 5869).
pub trait Derivation: Send + Sync {
    /// Writes the digest of the concatenated parts to the first `hash.len()` bytes of the result.
    fn digest(&self, hash: Hash, parts: &[&[u8]]) -> [u8; 64];
    /// HKDF with extraction, no salt.
    fn hkdf(&self, hash: Hash, secret: &[u8], info: &[u8]) -> Result<Secret<32>, Error>;
    /// HKDF-Expand alone, from a key that is uniform already.
    fn expand(&self, hash: Hash, key: &Secret<32>, info: &[&[u8]]) -> Result<[u8; 32], Error>;
}

/// The system's randomness.
pub trait Random: Send + Sync {
    /// Fills with random bytes.
    fn fill(&self, out: &mut [u8]) -> Result<(), Error>;
}

/// AWS-LC.
pub static AWS_LC: Provider = Provider {
    name: "aws-lc",
    signing: &aws_lc::AwsLc,
    kem: &aws_lc::AwsLc,
    symmetric: &aws_lc::AwsLc,
    derivation: &aws_lc::AwsLc,
    random: &aws_lc::AwsLc,
};

/// ring for the classical primitives, the RustCrypto crates for the others.
pub static RUSTCRYPTO: Provider = Provider {
    name: "rustcrypto",
    signing: &rustcrypto::RustCrypto,
    kem: &rustcrypto::RustCrypto,
    symmetric: &rustcrypto::RustCrypto,
    derivation: &rustcrypto::RustCrypto,
    random: &rustcrypto::RustCrypto,
};

/// Every provider in this build.
pub static PROVIDERS: [&Provider; 2] = [&AWS_LC, &RUSTCRYPTO];

impl Provider {
    /// The provider of that name.
    pub fn named(name: &str) -> Result<&'static Self, Error> {
        PROVIDERS.iter().copied().find(|p| p.name == name).ok_or_else(|| {
            Error::Malformed(format!("`{name}` is not a crypto provider of this build; known are `aws-lc` and `rustcrypto`"))
        })
    }

    /// The default, `aws-lc` where its self-test passes, else `rustcrypto`; decided once, at first use.
    ///
    /// Where neither passes, `rustcrypto` is returned all the same and every caller's own key generation fails its pairwise check.
    pub fn chosen() -> &'static Self {
        static CHOSEN: OnceLock<&'static Provider> = OnceLock::new();
        CHOSEN.get_or_init(|| if AWS_LC.self_test().is_ok() { &AWS_LC } else { &RUSTCRYPTO })
    }

    /// Known answers and pairwise consistency of every primitive; the error names the first that fails.
    pub fn self_test(&self) -> Result<(), Error> {
        self_test::run(self)
    }

    /// The SHA-256 digest of the concatenated parts.
    pub fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let digest = self.derivation.digest(Hash::Sha256, parts);
        let mut out = [0; 32];
        out.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        out
    }

    /// `N` random bytes that are not secret: nonces, identifiers.
    pub fn nonce<const N: usize>(&self) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        self.random.fill(&mut out)?;
        Ok(out)
    }
}
