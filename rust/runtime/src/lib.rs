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

use std::fmt::Write;

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
