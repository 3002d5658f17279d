//! Algorithms, keys, signatures, key encapsulation and authenticated encryption, behind one plain struct of trait objects.
//!
//! This crate never reads policy, never talks to a network and never hands out secret bytes.

mod algorithm;
pub mod asn1;
pub mod dsse;
mod error;
mod kem;
mod provider;
mod sealer;
mod secret;
mod signature;
mod signing;
pub mod spki;
mod verifying;

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
