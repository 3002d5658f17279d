//! The port to policy.

use crate::{CheckRef, Decision, Digest, Result};
use std::sync::Arc;

/// When an act is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AuditWhen {
    /// The intent before it starts, the outcome after it.
    #[default]
    Before,
    /// The outcome only (`@audit("after")`).
    After,
}

/// A decision, and what it rests on.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What is answered.
    pub decision: Decision,
    /// Every oversight policy whose agreement is needed, sorted; empty unless the decision asks.
    pub oversight: Vec<Arc<str>>,
    /// Digest of the policy set that decided.
    pub policy_set: Digest,
    /// When the act is to be recorded.
    pub audit: AuditWhen,
}

/// Decides whether an act may be done.
pub trait Authorizer: Send + Sync {
    /// Decides; an error is treated as a denial by every caller.
    fn decide(&self, check: &CheckRef<'_>) -> Result<Verdict>;
}
