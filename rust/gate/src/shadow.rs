//! A second policy set that is asked beside the one that serves: what it would decide otherwise is counted and recorded, and changes nothing.

use crate::enter::{Act, Combined, Parts, combine};
use crate::permit::record_id;
use crate::principal::Principal;
use creto_authz::{Engine, View};
use creto_enablement_common::sync::RwLock;
use creto_enablement_common::{Digest, RecordKind, RecordRef, Timestamp};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How many acts were compared, and how many of them the second set would have decided otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowCounts {
    /// Acts asked of both sets.
    pub compared: u64,
    /// Those that the second set would have decided otherwise.
    pub differing: u64,
}

#[derive(Default)]
pub(crate) struct Shadow {
    /// Read by every act; the rest only where it is set.
    on: AtomicBool,
    engine: RwLock<Option<Arc<Engine>>>,
    compared: AtomicU64,
    differing: AtomicU64,
}

impl Shadow {
    pub(crate) fn put(&self, engine: Option<Arc<Engine>>) {
        let on = engine.is_some();
        *self.engine.write() = engine;
        self.compared.store(0, Ordering::Relaxed);
        self.differing.store(0, Ordering::Relaxed);
        self.on.store(on, Ordering::Release);
    }

    pub(crate) fn counts(&self) -> ShadowCounts {
        ShadowCounts { compared: self.compared.load(Ordering::Relaxed), differing: self.differing.load(Ordering::Relaxed) }
    }

    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Asks the second set, and puts on record what differs; whatever goes wrong here is no concern of the act.
    #[cold]
    pub(crate) fn compare(
        &self,
        parts: &Parts,
        serving: &View,
        principal: &Principal,
        act: &Act<'_>,
        now: Timestamp,
        decided: Result<&Combined<'_>, &(Arc<str>, Digest)>,
    ) {
        let Some(engine) = self.engine.read().clone() else { return };
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let view = engine.view();
            let other = combine(&view, Some(serving), principal, act);
            self.compared.fetch_add(1, Ordering::Relaxed);
            let (was, would) = (described(decided), described(other.as_ref()));
            if was.0 == would.0 && (was.0 != "ask" || was.1 == would.1) {
                return;
            }
            self.differing.fetch_add(1, Ordering::Relaxed);
            let policy = other.as_ref().map_or_else(|(_, set)| *set, |combined| combined.policy_set);
            // Where the ledger is full the counters still tell; the act itself is refused by its own record.
            let _ = parts.audit.enqueue(&RecordRef {
                who: principal.agent(),
                delegation_chain: &principal.links(),
                what: "policy:shadow",
                resource: act.resource,
                why: &would.1,
                outcome: None,
                timestamp: now,
                id: record_id(now, 4),
                act: record_id(now, 0),
                kind: RecordKind::Event,
                digest: None,
                policy: Some(&policy),
                usage: &[],
                detail: &[("action", act.action), ("was", was.0), ("would", would.0)],
            });
        }));
    }
}

fn described(decided: Result<&Combined<'_>, &(Arc<str>, Digest)>) -> (&'static str, String) {
    match decided {
        Err((reason, _)) => ("deny", reason.to_string()),
        Ok(combined) if combined.oversight.is_empty() => ("allow", combined.permit.to_string()),
        Ok(combined) => ("ask", combined.oversight.iter().map(|id| &**id).collect::<Vec<_>>().join(", ")),
    }
}
