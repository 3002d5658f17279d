//! What is asked before an act, and what is answered.

use crate::{AgentId, Fields};
use std::sync::Arc;

/// What is asked, owned, as on the public face. Inside, `CheckRef` is handed down instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRequest {
    /// Who acts.
    pub agent: AgentId,
    /// `namespace:verb`, such as `http:get`.
    pub action: String,
    /// On what.
    pub resource: String,
}

impl CheckRequest {
    /// The same, borrowed, with no context.
    pub fn as_ref(&self) -> CheckRef<'_> {
        CheckRef { agent: self.agent.as_str(), action: &self.action, resource: &self.resource, context: &[] }
    }
}

/// What is asked, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct CheckRef<'a> {
    /// The acting agent's SPIFFE id.
    pub agent: &'a str,
    /// `namespace:verb`, such as `http:get`.
    pub action: &'a str,
    /// On what; `Type::"id"`, or the bare id where the schema names one type for the action.
    pub resource: &'a str,
    /// The circumstances.
    pub context: Fields<'a>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Do not.
    Deny {
        /// Which policy, or the lack of one; shared, since most denials say the same.
        reason: Arc<str>,
    },
    /// A human has to agree first.
    RequiresOversight {
        /// The first, in sorted order, of the policies that ask.
        policy_id: String,
    },
}

/// What an act is expected to use, or has used: meter and quantity, in the meter's smallest unit.
pub type Usage<'a> = &'a [(&'a str, u64)];
