//! Non-human identities: who an agent is, and for whom it acts.
//!
//! This crate signs and verifies identity statements; it never stores anything and never decides what is allowed.

mod identity;

pub use identity::{AgentId, AgentIdentity, DelegationChain};
