//! Algorithms, keys, signatures, key encapsulation and authenticated encryption, behind one plain struct of trait objects.
//!
//! This crate never reads policy, never talks to a network and never hands out secret bytes.

mod algorithm;
pub mod asn1;
pub mod dsse;
mod dump;
mod error;
mod kem;
mod provider;
mod sealer;
mod secret;
mod signature;
mod signing;
pub mod spki;
#[cfg(test)]
mod vectors;
mod verifying;
#[cfg(test)]
mod wiped;

pub use algorithm::{Algorithm, Hash, KemAlgorithm, Suite};
pub use error::Error;
pub use kem::{KemKey, KemPublicKey};
pub use provider::{
    AWS_LC, Decapsulator, Derivation, Encapsulator, Kem, PROVIDERS, Provider, RUSTCRYPTO, Random, Signer, Signing, Symmetric, Verifier,
};
pub use sealer::Sealer;
pub use secret::Secret;
pub use signature::Signature;
pub use signing::SigningKey;
pub use spki::KeyId;
pub use verifying::VerifyingKey;

/// Whether two byte strings are equal, in a time that depends on their lengths alone.
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(left, right).is_ok()
}
