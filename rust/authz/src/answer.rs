//! What the engine answers, and what is made of it where acts are let through.

use creto_enablement_common::ports::AuditWhen;
use creto_enablement_common::{Decision, Digest};
use std::sync::Arc;

/// Cedar's answer to one request: the same three that cedar-policy gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// True for Allow.
    pub allowed: bool,
    /// Ids of the policies that determine the answer, sorted.
    pub determining: Vec<Arc<str>>,
    /// Ids of the policies that erred, sorted.
    pub erring: Vec<Arc<str>>,
}

/// What is to be done about one act: Cedar's answer, with oversight, and with every doubt resolved as a denial.
#[derive(Clone, Debug)]
pub struct Ruling {
    /// What is answered.
    pub decision: Decision,
    /// Every oversight policy whose agreement is needed, sorted; empty unless the decision asks.
    pub oversight: Vec<Arc<str>>,
    /// The first, in sorted order, of the permits that apply; none unless allowed or asked.
    pub permit: Option<Arc<str>>,
    /// When the act is to be recorded.
    pub audit: AuditWhen,
    /// Digest of the policy set that decided.
    pub policy_set: Digest,
    /// When the version that decided was made, by a set installed or entities changed, in microseconds since the Unix epoch; 0 without one.
    pub made: u64,
}

/// What is to be done about one act, told shortly: nearly every ruling is one that this version gives to many acts.
#[derive(Clone, Debug)]
pub enum Told {
    /// The place of a common ruling; `View::common` has it.
    Common(u32),
    /// A ruling of its own.
    Own(Box<Ruling>),
}
