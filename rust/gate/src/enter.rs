//! The way in: policy for every link of the chain, then quota for the whole path.

use crate::grant::Grant;
use crate::permit::{Permit, record_id};
use crate::principal::{Link, Principal};
use crate::recorded::{Recorded, recorded};
use crate::refusal::Refusal;
use crate::shadow::{Shadow, ShadowCounts};
use crate::texts::Texts;
use creto_authz::{Engine, QuestionBuffers, Ruling, View};
use creto_enablement_common::ports::{AuditSink, AuditWhen, Clock, QuotaEnforcer, Ticket};
use creto_enablement_common::{CheckRef, Decision, Digest, Error, ErrorKind, Fields, RecordKind, RecordRef, Result, Timestamp, Usage};
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64};

/// What is asked of the gate.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    /// `namespace:verb`.
    pub action: &'a str,
    /// On what; `Type::"id"`, or the bare id where the schema names one type for the action.
    pub resource: &'a str,
    /// The circumstances.
    pub context: Fields<'a>,
    /// What it is expected to use.
    pub usage: Usage<'a>,
}

pub(crate) struct Parts {
    pub(crate) policy: Arc<Engine>,
    pub(crate) quota: Arc<dyn QuotaEnforcer>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shadow: Shadow,
}

/// The way every act goes in; cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<Parts>);

/// What policy said about the whole chain.
pub(crate) struct Combined<'a> {
    pub(crate) oversight: Vec<Arc<str>>,
    /// The policy that permits it to the agent itself.
    pub(crate) permit: Cow<'a, str>,
    pub(crate) audit: AuditWhen,
    pub(crate) policy_set: Digest,
}

impl Combined<'_> {
    /// Takes over what a ruling asks for, and tells when the act is recorded by it; of a denial, the reason.
    fn heed(&mut self, ruling: Ruling) -> Result<AuditWhen, Arc<str>> {
        if let Decision::Deny { reason } = ruling.decision {
            return Err(reason);
        }
        self.oversight.extend(ruling.oversight);
        Ok(ruling.audit)
    }
}

impl Gate {
    /// A gate over these parts.
    pub fn new(policy: Arc<Engine>, quota: Arc<dyn QuotaEnforcer>, audit: Arc<dyn AuditSink>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Parts { policy, quota, audit, clock, shadow: Shadow::default() }))
    }

    /// Asks a second engine about every act beside the one that serves, from here on; none ends that. Its entities are its own.
    pub fn shadow(&self, engine: Option<Arc<Engine>>) {
        self.0.shadow.put(engine);
    }

    /// What the second engine came to since it was put there.
    pub fn shadow_counts(&self) -> ShadowCounts {
        self.0.shadow.counts()
    }

    /// Prepares a principal; attenuations are compiled here, once.
    ///
    /// # Errors
    /// `InvalidInput` where the chain is too long or an attenuation is not Cedar.
    pub fn principal(&self, agent: &str, path: &[&str], chain: &[(&str, Option<&str>)]) -> Result<Arc<Principal>> {
        let links = chain
            .iter()
            .map(|&(id, text)| {
                let attenuation = text
                    .map(|text| self.0.policy.attenuation(text))
                    .transpose()
                    .map_err(|error| error.with_context(format!("reading what the delegation to `{id}` is narrowed to")))?;
                Ok(Link { id: id.into(), actor: self.0.policy.actor(id)?, attenuation })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Principal::new(Arc::clone(&self.0), agent, self.0.policy.actor(agent)?, path, links)?))
    }

    /// Lets an act in, or says why not. A panic inside is a denial.
    ///
    /// # Errors
    /// A refusal that names the policy or the quota; with oversight required, every policy that asks.
    pub fn enter(&self, principal: &Arc<Principal>, act: &Act<'_>, grant: Option<&Grant>) -> Result<Box<Permit>, Refusal> {
        catch_unwind(AssertUnwindSafe(|| self.try_enter(principal, act, grant))).unwrap_or_else(|_| Err(fault(principal, act)))
    }

    /// What policy says to the whole chain: the policies that ask a human, none where nobody is asked. Nothing is reserved, nothing recorded.
    ///
    /// # Errors
    /// A refusal that names the policy. A panic inside is a denial.
    pub fn consult(&self, principal: &Arc<Principal>, act: &Act<'_>) -> Result<Vec<Arc<str>>, Refusal> {
        catch_unwind(AssertUnwindSafe(|| {
            self.require_own(principal, act)?;
            let view = self.0.policy.view();
            let combined = combine(&view, None, principal, act);
            combined.map(|combined| combined.oversight).map_err(|(reason, _)| denied(principal, act, &reason))
        }))
        .unwrap_or_else(|_| Err(fault(principal, act)))
    }

    fn require_own(&self, principal: &Principal, act: &Act<'_>) -> Result<(), Refusal> {
        if Arc::ptr_eq(&self.0, &principal.parts) {
            return Ok(());
        }
        let error = Error::invalid("the principal was prepared by another gate; prepare it by the one that it goes through");
        Err(Refusal { error: error.with_context(describe(principal, act)), oversight: Vec::new(), ticket: None })
    }

    fn try_enter(&self, principal: &Arc<Principal>, act: &Act<'_>, grant: Option<&Grant>) -> Result<Box<Permit>, Refusal> {
        let parts = &self.0;
        self.require_own(principal, act)?;
        let now = parts.clock.now();
        // One version of policies and entities for the whole chain.
        let view = parts.policy.view();
        let decided = combine(&view, None, principal, act);
        // An act that comes again with its grant was compared when it came first.
        if parts.shadow.is_on() && grant.is_none() {
            parts.shadow.compare(parts, &view, principal, act, now, decided.as_ref());
        }
        let names = view.recorded(act.action);
        let kept = (!names.is_empty()).then(|| recorded(names, act.context));
        let combined = match decided {
            Ok(combined) => combined,
            Err((reason, policy)) => {
                let ticket = self.record_refusal(principal, act, now, ("policy", &reason), Some(&policy), kept.as_ref());
                return Err(Refusal { ticket, ..denied(principal, act, &reason) });
            }
        };
        if !combined.oversight.is_empty() && !grant.is_some_and(|grant| grant.covers(&combined.oversight)) {
            // Quota is checked, so that nobody is asked about what could not be paid for, and not held while a human thinks.
            if !act.usage.is_empty() {
                parts
                    .quota
                    .check_quota(&principal.nodes(), act.usage, now)
                    .map_err(|error| self.over_quota(principal, act, now, error, &combined, kept.as_ref()))?;
            }
            let first = combined.oversight.first().map(ToString::to_string).unwrap_or_default();
            let error = Error::new(ErrorKind::OversightRequired { policy_id: first }).with_context(describe(principal, act));
            return Err(Refusal { error, oversight: combined.oversight, ticket: None });
        }
        let reservation = if act.usage.is_empty() {
            None
        } else {
            let held = principal.quota().and_then(|path| path.reserve(act.usage, now));
            Some(held.map_err(|error| self.over_quota(principal, act, now, error, &combined, kept.as_ref()))?)
        };
        // In a box, since it is moved again and again on its way to who holds it.
        Ok(Box::new(Permit {
            principal: Arc::clone(principal),
            texts: Texts::of(act, &combined.permit),
            reservation,
            entered: now,
            audit: if combined.oversight.is_empty() { combined.audit } else { AuditWhen::Before },
            policy: combined.policy_set,
            context: kept,
            digest: grant.map(|grant| grant.digest),
            state: AtomicU8::new(0),
            intent: AtomicU64::new(0),
        }))
    }

    fn over_quota(
        &self,
        principal: &Principal,
        act: &Act<'_>,
        now: Timestamp,
        error: Error,
        combined: &Combined<'_>,
        kept: Option<&Recorded>,
    ) -> Refusal {
        // Units that are not leased yet are no refusal of the act: the caller leases some and comes again.
        let again = error.context().any(|line| line == creto_metering::Refusal::LEASE);
        let why = || error.to_string();
        let ticket =
            if again { None } else { self.record_refusal(principal, act, now, ("quota", &why()), Some(&combined.policy_set), kept) };
        Refusal { error: error.with_context(describe(principal, act)), oversight: Vec::new(), ticket }
    }

    /// Puts on record that an act was refused for what the gate let its caller wait for: units of a shared quota that never came. Every
    /// refusal has a record.
    pub fn refused(&self, principal: &Arc<Principal>, act: &Act<'_>, why: &str) -> Option<Ticket> {
        let view = self.0.policy.view();
        let names = view.recorded(act.action);
        let kept = (!names.is_empty()).then(|| recorded(names, act.context));
        self.record_refusal(principal, act, self.0.clock.now(), ("quota", why), None, kept.as_ref())
    }

    /// A refusal stands even where the ledger cannot take its record: refusing is the safe side.
    fn record_refusal(
        &self,
        principal: &Principal,
        act: &Act<'_>,
        now: Timestamp,
        (by, why): (&str, &str),
        policy: Option<&Digest>,
        kept: Option<&Recorded>,
    ) -> Option<Ticket> {
        let mut detail = principal.details();
        detail.push(("refused", by));
        detail.extend(kept.into_iter().flat_map(Recorded::details));
        self.0
            .audit
            .enqueue(&RecordRef {
                who: principal.agent(),
                delegation_chain: &principal.links(),
                what: act.action,
                resource: act.resource,
                why,
                outcome: None,
                timestamp: now,
                id: record_id(now, 3),
                act: record_id(now, 0),
                kind: RecordKind::Refusal,
                digest: None,
                policy,
                usage: act.usage,
                detail: &detail,
            })
            .ok()
    }
}

/// Deny over RequiresOversight over Allow, for every link and the agent itself. What a hop was narrowed to is asked of `serving`, which its
/// compiled form belongs to, where that is another version than the one that is asked.
#[inline]
pub(crate) fn combine<'a>(
    view: &'a View,
    serving: Option<&View>,
    principal: &Principal,
    act: &Act<'_>,
) -> Result<Combined<'a>, (Arc<str>, Digest)> {
    // One version of policies and entities for the whole chain, and the act read once.
    let (mut buffers, mut others) = (QuestionBuffers::default(), QuestionBuffers::default());
    let Some(question) = view.question(act.action, act.resource, act.context, &mut buffers) else {
        let check = CheckRef { agent: principal.agent(), action: act.action, resource: act.resource, context: act.context };
        let ruling = view.rule(&check);
        return Err(match ruling.decision {
            Decision::Deny { reason } => (reason, ruling.policy_set),
            _ => ("the act cannot be read".into(), ruling.policy_set),
        });
    };
    let hops = serving.and_then(|serving| serving.question(act.action, act.resource, act.context, &mut others));
    let hops = hops.as_ref().unwrap_or(&question);
    let policy_set = view.digest();
    let mut combined = Combined { oversight: Vec::new(), permit: Cow::Borrowed(""), audit: AuditWhen::Before, policy_set };
    match question.agrees(principal.actor()) {
        Ok(agreed) => {
            combined.permit = view.policy_id(agreed.permit).unwrap_or_default().into();
            combined.audit = agreed.audit;
        }
        Err(mut own) => {
            combined.permit = own.permit.take().unwrap_or_default().to_string().into();
            combined.audit = combined.heed(own).map_err(|reason| (reason, policy_set))?;
        }
    }
    for link in principal.chain() {
        if *link.id != *principal.agent() {
            let agreed = question.agrees(&link.actor).map(|agreed| agreed.audit).or_else(|ruling| combined.heed(ruling));
            let refused = |reason| (format!("`{}`, for whom the agent acts, may not: {reason}", link.id).into(), policy_set);
            if agreed.map_err(refused)? == AuditWhen::Before {
                combined.audit = AuditWhen::Before;
            }
        }
        if let Some(attenuation) = &link.attenuation {
            let covered = hops.covered(attenuation, principal.actor()).or_else(|ruling| combined.heed(ruling));
            covered.map_err(|reason| (format!("the delegation to `{}` does not cover it: {reason}", link.id).into(), policy_set))?;
        }
    }
    if combined.oversight.len() > 1 {
        combined.oversight.sort_unstable();
        combined.oversight.dedup();
    }
    Ok(combined)
}

fn denied(principal: &Principal, act: &Act<'_>, reason: &str) -> Refusal {
    Refusal::denied(format!("{}: {reason}", describe(principal, act)))
}

fn fault(principal: &Principal, act: &Act<'_>) -> Refusal {
    denied(principal, act, "internal fault while deciding, so it is denied")
}

fn describe(principal: &Principal, act: &Act<'_>) -> String {
    format!("`{}` on `{}` by `{}`", act.action, act.resource, principal.agent())
}
