//! Algorithms, keys, signatures, key encapsulation and authenticated encryption, behind one plain struct of trait objects.
//!
//! This crate never reads policy, never talks to a network and never hands out secret bytes.

mod algorithm;
mod error;
mod signature;

pub use algorithm::{Algorithm, Suite};
pub use error::Error;
pub use signature::Signature;
