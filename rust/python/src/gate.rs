//! `creto-gate` for Python.

use crate::authz::PolicyEngine;
use crate::error::{IntoPy, to_py};
use crate::lent::with_act;
use crate::oversight::{PyGrant, act_of};
use creto_crypto::Suite;
use creto_enablement_common::OutcomeRef;
use creto_enablement_common::ports::{AuditSink, Clock, QuotaEnforcer};
use creto_gate::{Act, Gate as InnerGate, Grant, Permit as InnerPermit, Principal as InnerPrincipal, Refusal};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use std::sync::Arc;

/// Who acts, for whom, and against whose quota: prepared once, used for many acts.
#[pyclass(frozen, module = "creto._core")]
pub struct Principal(Arc<InnerPrincipal>);

#[pymethods]
impl Principal {
    /// The acting agent's id.
    #[getter]
    fn agent(&self) -> &str {
        self.0.agent()
    }

    /// The quota path, the organisation first.
    #[getter]
    fn path(&self) -> Vec<&str> {
        self.0.path().iter().map(|node| &**node).collect()
    }

    /// The links of the delegation chain, the first delegator first.
    #[getter]
    fn chain(&self) -> Vec<&str> {
        self.0.chain().iter().map(|link| &*link.id).collect()
    }
}

/// An act that was let in: settle it once; dropped unsettled, it gives back what it holds.
#[pyclass(frozen, module = "creto._core")]
pub struct Permit(Box<InnerPermit>);

#[pymethods]
impl Permit {
    /// The id that intent and outcome share.
    #[getter]
    fn act<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.act())
    }

    /// True where the intent has to be durable before the act starts.
    #[getter]
    fn wants_intent(&self) -> bool {
        self.0.wants_intent()
    }

    /// The policy that let the act in.
    #[getter]
    fn policy(&self) -> &str {
        self.0.policy()
    }

    /// Puts the intent on record, and gives its ticket.
    fn intent(&self, py: Python<'_>) -> PyResult<u64> {
        self.0.intent().map(|ticket| ticket.0).or_raise(py)
    }

    /// Charges or gives back, and puts the outcome on record; gives its ticket. `failure` says why the act failed; None means success.
    /// `usage` is what was used; without it, success charges what was reserved and failure nothing.
    #[pyo3(signature = (failure=None, usage=None))]
    fn settle(&self, py: Python<'_>, failure: Option<&str>, usage: Option<&Bound<'_, PyDict>>) -> PyResult<u64> {
        let outcome = failure.map_or(OutcomeRef::Success, OutcomeRef::Failure);
        let given = usage.is_some();
        with_act(None, usage, |_, actual| self.0.settle(outcome, given.then_some(actual)))?.map(|settled| settled.ticket.0).or_raise(py)
    }
}

/// The way every act goes in.
#[pyclass(frozen, module = "creto._core")]
pub struct Gate(InnerGate);

#[pymethods]
impl Gate {
    /// A gate over these parts.
    #[new]
    fn new(
        policy: &PolicyEngine,
        quota: &crate::quota::QuotaEnforcer,
        ledger: &crate::audit::Ledger,
        clock: &crate::consensus::HybridLogicalClock,
    ) -> Self {
        let quota: Arc<dyn QuotaEnforcer> = quota.shared();
        let audit: Arc<dyn AuditSink> = ledger.shared();
        let clock: Arc<dyn Clock> = clock.shared();
        Self(InnerGate::new(policy.shared(), quota, audit, clock))
    }

    /// Asks a second engine about every act beside the one that serves, and records where it would decide otherwise; None ends that.
    #[pyo3(signature = (engine))]
    fn shadow(&self, engine: Option<&PolicyEngine>) {
        self.0.shadow(engine.map(PolicyEngine::shared));
    }

    /// How many acts were asked of the second engine, and how many of them it would have decided otherwise.
    #[getter]
    fn shadow_counts(&self) -> (u64, u64) {
        let counts = self.0.shadow_counts();
        (counts.compared, counts.differing)
    }

    /// Prepares a principal. `path` is the quota path, the organisation first; `chain` holds ids, or pairs of an id and the Cedar text that
    /// the hop to it was narrowed to. `sandbox` is where it acts from, which its records name.
    #[pyo3(signature = (agent, path=Vec::new(), chain=Vec::new(), *, sandbox=None))]
    fn principal(
        &self,
        py: Python<'_>,
        agent: &str,
        path: Vec<String>,
        chain: Vec<Bound<'_, PyAny>>,
        sandbox: Option<&str>,
    ) -> PyResult<Principal> {
        let links = chain
            .into_iter()
            .map(|link| match link.cast::<PyString>() {
                Ok(id) => Ok((id.to_string(), None)),
                Err(_) => link.extract::<(String, Option<String>)>(),
            })
            .collect::<PyResult<Vec<_>>>()?;
        let links: Vec<(&str, Option<&str>)> = links.iter().map(|(id, text)| (id.as_str(), text.as_deref())).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let made = py.detach(|| self.0.principal(agent, &path, &links)).or_raise(py)?;
        Ok(Principal(match sandbox {
            Some(sandbox) => Arc::new(Arc::unwrap_or_clone(made).inside(sandbox)),
            None => made,
        }))
    }

    /// Lets an act in, or raises why not: UnauthorizedError, QuotaExceededError, or OversightRequiredError with every asking policy in
    /// `policy_ids`. `grant` holds what humans agreed to; only grants that cover exactly this act count.
    #[pyo3(signature = (principal, action, resource, context=None, usage=None, grant=None))]
    #[allow(clippy::too_many_arguments, reason = "the signature of the contract, flat for speed")]
    fn enter(
        &self,
        py: Python<'_>,
        principal: &Principal,
        action: &str,
        resource: &str,
        context: Option<&Bound<'_, PyDict>>,
        usage: Option<&Bound<'_, PyDict>>,
        grant: Option<Vec<PyRef<'_, PyGrant>>>,
    ) -> PyResult<Permit> {
        let grant = grant.map(|grants| covering(py, principal, action, resource, (context, usage), &grants)).transpose()?;
        with_act(context, usage, |context, usage| self.0.enter(&principal.0, &Act { action, resource, context, usage }, grant.as_ref()))?
            .map(Permit)
            .map_err(|refusal| raise(py, &refusal))
    }

    /// What policy says to the whole chain, with nothing reserved and nothing recorded: the ids of the policies that ask a human, none where
    /// nobody is asked; raises UnauthorizedError where it says no.
    #[pyo3(signature = (principal, action, resource, context=None))]
    fn consult(
        &self,
        py: Python<'_>,
        principal: &Principal,
        action: &str,
        resource: &str,
        context: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<String>> {
        with_act(context, None, |context, usage| self.0.consult(&principal.0, &Act { action, resource, context, usage }))?
            .map(|asking| asking.iter().map(ToString::to_string).collect())
            .map_err(|refusal| raise(py, &refusal))
    }

    /// Puts on record that an act was refused for units of a shared quota that never came; the ticket of the record.
    #[pyo3(signature = (principal, action, resource, usage, why))]
    fn refused(
        &self,
        principal: &Principal,
        action: &str,
        resource: &str,
        usage: Option<&Bound<'_, PyDict>>,
        why: &str,
    ) -> PyResult<Option<u64>> {
        let refused = with_act(None, usage, |context, usage| self.0.refused(&principal.0, &Act { action, resource, context, usage }, why))?;
        Ok(refused.map(|ticket| ticket.0))
    }
}

/// The grants that cover exactly this act.
fn covering(
    py: Python<'_>,
    principal: &Principal,
    action: &str,
    resource: &str,
    (context, usage): (Option<&Bound<'_, PyDict>>, Option<&Bound<'_, PyDict>>),
    grants: &[PyRef<'_, PyGrant>],
) -> PyResult<Grant> {
    let act = act_of(py, principal.0.agent(), &principal.chain(), None, action, resource, context, usage, Suite::Standard)?;
    let digest = act.core_digest(Suite::Standard).or_raise(py)?;
    let mut policies = Vec::new();
    for grant in grants {
        if grant.0.covers(&act).or_raise(py)? {
            policies.push(Arc::from(grant.0.policy()));
        }
    }
    Ok(Grant { digest: digest.bytes().try_into().unwrap_or_default(), policies })
}

/// The exception for a refusal, with every asking policy and the ticket of its record.
fn raise(py: Python<'_>, refusal: &Refusal) -> PyErr {
    let raised = to_py(py, &refusal.error);
    let ids: Vec<&str> = refusal.oversight.iter().map(|id| &**id).collect();
    let value = raised.value(py);
    let set = value.setattr("policy_ids", ids).and_then(|()| value.setattr("ticket", refusal.ticket.map(|ticket| ticket.0)));
    set.map_or_else(|failed| failed, |()| raised)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Principal>()?;
    module.add_class::<Permit>()?;
    module.add_class::<Gate>()
}
