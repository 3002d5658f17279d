//! The one crate that knows all parts: enter, permit, settle.
//!
//! An act enters once: policy for every link of the delegation chain, then an all-or-nothing reservation of quota. What comes out is a permit,
//! settled once, or a refusal that names the policy or the quota. Nothing here waits for a disk: records are enqueued, and whoever needs them
//! durable waits for their tickets.

mod enter;
mod grant;
mod permit;
mod principal;
mod recorded;
mod refusal;
mod shadow;
mod texts;
pub mod usage;

pub use enter::{Act, Gate};
pub use grant::Grant;
pub use permit::{Permit, Settlement};
pub use principal::{Link, Principal};
pub use refusal::Refusal;
pub use shadow::ShadowCounts;
