//! The specification's two functions: an operation behind a check, and an operation with a record.

use crate::ports::{AuditSink, Authorizer, Durability};
use crate::{AgentIdentity, CheckRef, Decision, DelegationChain, Error, ErrorKind, OutcomeRef, RecordKind, RecordRef, Result};
use creto_consensus::consensus_timestamp;

/// Performs `operation` only where policy allows it.
///
/// # Errors
/// `Unauthorized` with the policy that denied, `OversightRequired` where a human has to agree first, or the operation's own.
pub fn authorized_operation<T>(
    authz: &dyn Authorizer,
    agent: &AgentIdentity,
    action: &str,
    resource: &str,
    operation: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let verdict = authz.decide(&CheckRef { agent: agent.id.as_str(), action, resource, context: &[] })?;
    match verdict.decision {
        Decision::Allow => operation(),
        Decision::Deny { reason } => {
            Err(Error::new(ErrorKind::Unauthorized).with_context(format!("`{action}` on `{resource}` by `{}`: {reason}", agent.id)))
        }
        Decision::RequiresOversight { policy_id } => {
            Err(Error::new(ErrorKind::OversightRequired { policy_id })
                .with_context(format!("`{action}` on `{resource}` by `{}`", agent.id)))
        }
    }
}

/// Performs `operation` between two durable records: the intent before it, the outcome after it.
///
/// # Errors
/// The ledger's, in which case the operation did not start or its outcome is unknown to the ledger; or the operation's own.
pub fn audited_operation<T>(
    audit: &dyn AuditSink,
    agent: &AgentIdentity,
    delegation_chain: &DelegationChain,
    action: &str,
    resource: &str,
    operation: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let now = consensus_timestamp();
    let act = record_id(now, 0);
    let chain: Vec<&str> = delegation_chain.links.iter().map(|id| id.as_str()).collect();
    let mut record = RecordRef {
        who: agent.id.as_str(),
        delegation_chain: &chain,
        what: action,
        resource,
        why: "audited operation",
        outcome: None,
        timestamp: now,
        id: act,
        act,
        kind: RecordKind::Intent,
        digest: None,
        policy: None,
        usage: &[],
        detail: &[],
    };
    audit.append(&record, Durability::Strict)?;
    let result = operation();
    let failure = result.as_ref().err().map(ToString::to_string);
    record.timestamp = consensus_timestamp();
    record.id = record_id(record.timestamp, 1);
    record.kind = RecordKind::Outcome;
    record.outcome = Some(failure.as_deref().map_or(OutcomeRef::Success, OutcomeRef::Failure));
    audit.append(&record, Durability::Strict)?;
    result
}

/// An id that no other record of this folder has: the clock never gives one word twice.
fn record_id(now: crate::Timestamp, step: u8) -> [u8; 16] {
    let mut id = [0; 16];
    let (head, tail) = id.split_at_mut(8);
    head.copy_from_slice(&now.word().to_be_bytes());
    if let Some(last) = tail.last_mut() {
        *last = step;
    }
    id
}
