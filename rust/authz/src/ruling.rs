//! What is to be done about an act, from what the policies said.

use crate::answer::Ruling;
use crate::roster::code;
use crate::set::{Policy, Set};
use crate::tally::Tally;
use creto_enablement_common::ports::AuditWhen;
use creto_enablement_common::{Decision, Digest};
use std::sync::Arc;

impl Ruling {
    /// A denial by no version.
    pub fn denied(reason: Arc<str>, policy_set: Digest) -> Self {
        Self { decision: Decision::Deny { reason }, oversight: Vec::new(), permit: None, audit: AuditWhen::Before, policy_set, made: 0 }
    }

    /// A plain forbid denies, then the lack of a permit, then oversight asks; a forbid that erred counts as one that forbids.
    #[inline]
    pub(crate) fn of<'a>(tally: &Tally, policy: impl Fn(u32) -> Option<&'a Policy>, set: &Set, made: u64) -> Self {
        let policy_set = set.digest;
        let permit = match *tally.permits {
            [] => None,
            [only] => policy(only).map(|policy| Arc::clone(&policy.id)),
            // Numbers go by the order of the ids.
            [..] => tally.permits.iter().min().and_then(|least| policy(*least)).map(|policy| Arc::clone(&policy.id)),
        };
        if !tally.forbids.is_empty() || !tally.erring.is_empty() || permit.is_none() {
            return Self { policy_set, made, ..Self::of_doubt(tally, &policy, permit, set) };
        }
        Self { decision: Decision::Allow, oversight: Vec::new(), permit, audit: audit_when(tally, &policy), policy_set, made }
    }

    fn of_doubt<'a>(tally: &Tally, policy: &impl Fn(u32) -> Option<&'a Policy>, permit: Option<Arc<str>>, set: &Set) -> Self {
        let deny = |reason: Arc<str>| Self::denied(reason, [0; 32]);
        if let Some(id) = first(&tally.erring, policy, |policy| policy.forbid) {
            return deny(format!("policy `{id}` forbids by a condition that erred").into());
        }
        if let Some(id) = first(&tally.forbids, policy, |policy| policy.oversight.is_none()) {
            return deny(format!("policy `{id}` forbids it").into());
        }
        if permit.is_none() {
            return deny(Arc::clone(&set.unpermitted));
        }
        let mut oversight: Vec<Arc<str>> =
            tally.forbids.iter().filter_map(|n| policy(*n)).filter_map(|policy| policy.oversight.clone()).collect();
        oversight.sort_unstable();
        oversight.dedup();
        let decision = match oversight.first() {
            Some(first) => Decision::RequiresOversight { policy_id: first.to_string() },
            None => Decision::Allow,
        };
        Self { decision, oversight, permit, audit: audit_when(tally, policy), policy_set: [0; 32], made: 0 }
    }
}

/// The first id, in sorted order, of the policies wanted: numbers go by the order of the ids.
fn first<'a>(numbers: &[u32], policy: &impl Fn(u32) -> Option<&'a Policy>, wanted: impl Fn(&Policy) -> bool) -> Option<Arc<str>> {
    let least = numbers.iter().filter(|n| policy(**n).is_some_and(&wanted)).min()?;
    policy(*least).map(|policy| Arc::clone(&policy.id))
}

/// When an act that these policies permit is to be recorded.
#[inline]
pub(crate) fn audit_when<'a>(tally: &Tally, policy: &impl Fn(u32) -> Option<&'a Policy>) -> AuditWhen {
    let after = tally.permits.iter().any(|n| policy(*n).is_some_and(|policy| policy.after));
    if after { AuditWhen::After } else { AuditWhen::Before }
}

/// The same decision without its reasons.
#[inline]
pub(crate) fn code_of<'a>(tally: &Tally, policy: impl Fn(u32) -> Option<&'a Policy>) -> u8 {
    let any = |numbers: &[u32], wanted: fn(&Policy) -> bool| numbers.iter().filter_map(|n| policy(*n)).any(wanted);
    if tally.permits.is_empty() || any(&tally.erring, |policy| policy.forbid) || any(&tally.forbids, |policy| policy.oversight.is_none()) {
        return code::DENY;
    }
    if tally.forbids.is_empty() { code::ALLOW } else { code::OVERSIGHT }
}
