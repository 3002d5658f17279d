//! The record of one act, as the ledger keeps it.

use crate::Timestamp;

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// How an act ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was not, or not wholly; the text says why.
    Failure(String),
}

/// Which moment of an act a record tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordKind {
    /// It is about to start.
    Intent,
    /// It ended.
    Outcome,
    /// It was refused.
    Refusal,
    /// Something of the layer itself: a policy installed, an agent made, a grant given, usage taken in.
    Event,
}

/// Who did what to which resource, why it was allowed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// The acting agent's SPIFFE id.
    pub who: String,
    /// For whom: SPIFFE ids, the first delegator first; empty where the agent acts for itself.
    pub delegation_chain: Vec<String>,
    /// The action, `namespace:verb`.
    pub what: String,
    /// On what.
    pub resource: String,
    /// The policy, grant or rule that decided.
    pub why: String,
    /// How it ended; none while it has not.
    pub outcome: Option<Outcome>,
    /// When, in the folder's hybrid logical time.
    pub timestamp: Timestamp,
    /// The covering checkpoint with the proof of inclusion; empty until the ledger has made one.
    pub signature: Vec<u8>,
    /// Unique: the same id is appended once however often it is offered.
    pub id: [u8; 16],
    /// The act that this record belongs to; intent and outcome share it.
    pub act: [u8; 16],
    /// Which moment of the act.
    pub kind: RecordKind,
    /// Digest of the act (RFC 8785 JSON), where one was made.
    pub digest: Option<Digest>,
    /// Digest of the policy set that decided.
    pub policy: Option<Digest>,
    /// Quantities used, by meter, in the meter's smallest unit.
    pub usage: Vec<(String, u64)>,
    /// Small further facts, by name; never bodies, never secrets.
    pub detail: Vec<(String, String)>,
}

/// How an act ended, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeRef<'a> {
    /// It was done.
    Success,
    /// It was not, or not wholly; the text says why.
    Failure(&'a str),
}

/// A record, borrowed from whoever writes it, so that an append allocates nothing. Fields as in `AuditRecord`.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// The acting agent's SPIFFE id.
    pub who: &'a str,
    /// For whom, the first delegator first.
    pub delegation_chain: &'a [&'a str],
    /// The action, `namespace:verb`.
    pub what: &'a str,
    /// On what.
    pub resource: &'a str,
    /// The policy, grant or rule that decided.
    pub why: &'a str,
    /// How it ended; none while it has not.
    pub outcome: Option<OutcomeRef<'a>>,
    /// When.
    pub timestamp: Timestamp,
    /// Unique id of the record.
    pub id: [u8; 16],
    /// The act it belongs to.
    pub act: [u8; 16],
    /// Which moment of the act.
    pub kind: RecordKind,
    /// Digest of the act, where one was made.
    pub digest: Option<&'a Digest>,
    /// Digest of the policy set that decided.
    pub policy: Option<&'a Digest>,
    /// Quantities used, by meter.
    pub usage: crate::Usage<'a>,
    /// Small further facts.
    pub detail: &'a [(&'a str, &'a str)],
}
