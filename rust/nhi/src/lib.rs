//! Non-human identities: who an agent is, and for whom it acts.
//!
//! This crate signs and verifies identity statements; it never stores anything and never decides what is allowed.

mod authority;
pub mod certificate;
mod chain;
mod delegation;
#[cfg(test)]
mod delegation_model;
mod directory;
mod identity;
mod spiffe;
mod statement;

pub use authority::{Authority, CLOCK_SKEW_SECONDS, TrustDomain};
pub use chain::{ChainCache, DelegationChain, Refusal};
pub use delegation::{Hop, HopRequest, Keys, Verification, unverified_names};
pub use directory::Directory;
pub use identity::AgentIdentity;
pub use spiffe::{AgentId, is_trust_domain};
