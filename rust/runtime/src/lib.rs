//! Sandbox launch, supervisor, egress proxy, attestation.
//!
//! Knows nothing of policy, identity or ledger: it asks whoever holds the sandbox, and tells what it saw.

pub mod backend;
pub mod cgroup;
pub mod changes;
pub mod egress;
pub mod guest;
#[cfg(feature = "gvisor")]
pub mod gvisor;
pub mod host;
pub mod image;
pub mod network;
pub mod pool;
#[cfg(feature = "process")]
pub mod process;
pub mod sandbox;
pub mod settings;
mod slot;
pub mod stdio;
mod sys;
mod workdir;
