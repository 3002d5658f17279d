//! A permit: an act that was let in, settled once, and given back if it is dropped.

use crate::principal::Principal;
use crate::recorded::Recorded;
use crate::texts::Texts;
use creto_enablement_common::ports::{AuditWhen, ReservationId, Ticket};
use creto_enablement_common::{Digest, Error, OutcomeRef, RecordKind, RecordRef, Result, Timestamp, Usage};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const OPEN: u8 = 0;
const SETTLED: u8 = 1;

/// An act that may be performed.
pub struct Permit {
    pub(crate) principal: Arc<Principal>,
    pub(crate) texts: Texts,
    pub(crate) reservation: Option<ReservationId>,
    pub(crate) entered: Timestamp,
    pub(crate) audit: AuditWhen,
    pub(crate) policy: Digest,
    /// What the schema wants on record of the circumstances.
    pub(crate) context: Option<Recorded>,
    pub(crate) digest: Option<Digest>,
    pub(crate) state: AtomicU8,
    /// The intent's ticket plus one, or zero.
    pub(crate) intent: std::sync::atomic::AtomicU64,
}

/// What settling did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The outcome's place in the ledger's queue.
    pub ticket: Ticket,
}

impl Permit {
    /// The id that intent and outcome share.
    pub fn act(&self) -> [u8; 16] {
        record_id(self.entered, 0)
    }

    /// True where the intent has to be on record before the act starts.
    pub fn wants_intent(&self) -> bool {
        self.audit == AuditWhen::Before
    }

    /// The policy that let the act in.
    pub fn policy(&self) -> &str {
        self.texts.why()
    }

    /// Puts the intent on record; asked again, it answers with the same ticket.
    ///
    /// # Errors
    /// The ledger's, and then the act must not start; `InvalidInput` once settled.
    pub fn intent(&self) -> Result<Ticket> {
        if self.state.load(Ordering::Acquire) != OPEN {
            return Err(Error::invalid("the permit is settled already, so no intent can precede it"));
        }
        let known = self.intent.load(Ordering::Acquire);
        if known != 0 {
            return Ok(Ticket(known - 1));
        }
        let ticket = self.record(RecordKind::Intent, 1, self.entered, None, Usages::Reserved)?;
        self.intent.store(ticket.0 + 1, Ordering::Release);
        Ok(ticket)
    }

    /// Charges what was used, or gives back what was held, and puts the outcome on record. `actual` is what was used; without it, success
    /// charges what was reserved, and failure nothing.
    ///
    /// # Errors
    /// `InvalidInput` where the permit is settled already; metering's or the ledger's, and then what was held stays charged.
    pub fn settle(&self, outcome: OutcomeRef<'_>, actual: Option<Usage<'_>>) -> Result<Settlement> {
        if self.state.swap(SETTLED, Ordering::AcqRel) != OPEN {
            return Err(Error::invalid("the permit is settled already; every act needs a permit of its own"));
        }
        let now = self.principal.parts.clock.now();
        self.finish(outcome, actual, now)
    }

    fn finish(&self, outcome: OutcomeRef<'_>, actual: Option<Usage<'_>>, now: Timestamp) -> Result<Settlement> {
        let charged = match (actual, outcome) {
            (Some(actual), _) => Usages::Actual(actual),
            (None, OutcomeRef::Success) => Usages::Reserved,
            (None, OutcomeRef::Failure(_)) => Usages::Actual(&[]),
        };
        // The record is written even where metering fails: what happened, happened.
        let quota = self.reservation.map_or(Ok(()), |id| match charged {
            Usages::Reserved => self.principal.quota().and_then(|path| path.commit_held(id, now)),
            Usages::Actual([]) => self.principal.parts.quota.release(id, now),
            Usages::Actual(usage) => self.principal.parts.quota.commit(id, usage, now),
        });
        let ticket = self.record(RecordKind::Outcome, 2, now, Some(outcome), charged)?;
        quota?;
        Ok(Settlement { ticket })
    }

    fn with_usage<T>(&self, charged: Usages<'_>, then: impl FnOnce(Usage<'_>) -> T) -> T {
        match charged {
            Usages::Actual(usage) => then(usage),
            Usages::Reserved => then(&self.texts.usage()),
        }
    }

    fn record(&self, kind: RecordKind, step: u8, now: Timestamp, outcome: Option<OutcomeRef<'_>>, charged: Usages<'_>) -> Result<Ticket> {
        let (action, resource) = (self.texts.action(), self.texts.resource());
        let mut detail = self.principal.details();
        // Once an act: with the intent, or with the outcome where there is no intent.
        if kind == RecordKind::Intent || self.intent.load(Ordering::Acquire) == 0 {
            detail.extend(self.context.iter().flat_map(Recorded::details));
        }
        self.with_usage(charged, |usage| {
            self.principal.parts.audit.enqueue(&RecordRef {
                who: self.principal.agent(),
                delegation_chain: &self.principal.links(),
                what: action,
                resource,
                why: self.texts.why(),
                outcome,
                timestamp: now,
                id: record_id(self.entered, step),
                act: self.act(),
                kind,
                digest: self.digest.as_ref(),
                policy: Some(&self.policy),
                usage,
                detail: &detail,
            })
        })
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit")
            .field("agent", &self.principal.agent())
            .field("action", &self.texts.action())
            .field("resource", &self.texts.resource())
            .finish_non_exhaustive()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if *self.state.get_mut() != OPEN {
            return;
        }
        let now = self.principal.parts.clock.now();
        let released = self.reservation.map_or(Ok(()), |id| self.principal.parts.quota.release(id, now));
        // Nobody is left to tell: where the ledger refuses, the missing outcome is itself on record, as an act whose outcome is unknown.
        let why = if released.is_ok() {
            "abandoned before it was settled"
        } else {
            "abandoned before it was settled; its reservation could not be given back"
        };
        let _ = self.record(RecordKind::Outcome, 2, now, Some(OutcomeRef::Failure(why)), Usages::Actual(&[]));
    }
}

#[derive(Clone, Copy)]
enum Usages<'a> {
    Reserved,
    Actual(Usage<'a>),
}

/// An id that no other record of this folder has: the clock never gives one word twice, and each step of an act adds its own mark.
pub(crate) fn record_id(entered: Timestamp, step: u8) -> [u8; 16] {
    ((u128::from(entered.word()) << 64) | u128::from(step)).to_be_bytes()
}
