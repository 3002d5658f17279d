//! `creto-authz` for Python.

use crate::error::IntoPy;
use crate::value::{borrow, hold};
use creto_authz::{Engine, EntityChange, Finding, Limits, Ruling, Severity, Sources};
use creto_enablement_common::ports::AuditWhen;
use creto_enablement_common::{CheckRef, Decision as Inner, Digest, Result};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::sync::Arc;

/// What policy says about one act.
#[pyclass(frozen, module = "creto._core")]
pub struct Decision {
    ruling: Ruling,
}

#[pymethods]
impl Decision {
    /// "allow", "deny" or "oversight".
    #[getter]
    fn outcome(&self) -> &'static str {
        match self.ruling.decision {
            Inner::Allow => "allow",
            Inner::Deny { .. } => "deny",
            Inner::RequiresOversight { .. } => "oversight",
        }
    }

    /// True where the act may go on without anybody being asked.
    #[getter]
    fn allowed(&self) -> bool {
        self.ruling.decision == Inner::Allow
    }

    /// Why it is denied; None unless it is.
    #[getter]
    fn reason(&self) -> Option<&str> {
        match &self.ruling.decision {
            Inner::Deny { reason } => Some(reason),
            _ => None,
        }
    }

    /// The first, in sorted order, of the policies that ask for a human; None unless one does.
    #[getter]
    fn policy_id(&self) -> Option<&str> {
        match &self.ruling.decision {
            Inner::RequiresOversight { policy_id } => Some(policy_id),
            _ => None,
        }
    }

    /// Every policy that asks for a human, sorted.
    #[getter]
    fn policy_ids(&self) -> Vec<&str> {
        self.ruling.oversight.iter().map(|id| &**id).collect()
    }

    /// The permit that applies, the first in sorted order.
    #[getter]
    fn permit(&self) -> Option<&str> {
        self.ruling.permit.as_deref()
    }

    /// "before" or "after": when the act is to be recorded.
    #[getter]
    fn audit(&self) -> &'static str {
        match self.ruling.audit {
            AuditWhen::Before => "before",
            AuditWhen::After => "after",
        }
    }

    /// SHA-256 of the policy set that decided.
    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.ruling.policy_set)
    }

    fn __bool__(&self) -> bool {
        self.allowed()
    }

    fn __repr__(&self) -> String {
        match &self.ruling.decision {
            Inner::Allow => "Decision(allow)".to_owned(),
            Inner::Deny { reason } => format!("Decision(deny: {reason})"),
            Inner::RequiresOversight { .. } => format!("Decision(oversight: {})", self.policy_ids().join(", ")),
        }
    }
}

/// Decides by the installed policy set; with none installed, everything is denied.
#[pyclass(frozen, module = "creto._core")]
pub struct PolicyEngine(Arc<Engine>);

impl PolicyEngine {
    /// The engine itself, for the parts that ask it.
    pub fn shared(&self) -> Arc<Engine> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl PolicyEngine {
    #[new]
    fn new() -> Self {
        Self(Arc::new(Engine::new()))
    }

    /// Parses, validates and installs a policy set; one that is refused leaves the one before it serving. Gives its digest and warnings.
    #[pyo3(signature = (policies, schema=None, entities=None))]
    fn install<'py>(
        &self,
        py: Python<'py>,
        policies: &str,
        schema: Option<&str>,
        entities: Option<&str>,
    ) -> PyResult<(Bound<'py, PyBytes>, Vec<Bound<'py, PyDict>>)> {
        let sources = Sources { policies, schema, entities: entities.unwrap_or_default() };
        let (digest, warnings): (Digest, Vec<Finding>) = py.detach(|| self.0.install(&sources)).or_raise(py)?;
        Ok((PyBytes::new(py, &digest), warnings.iter().map(|w| finding(py, w, policies)).collect::<PyResult<_>>()?))
    }

    /// Adds or replaces entities, a JSON array in Cedar's format; policies are not compiled again.
    fn upsert_entities(&self, py: Python<'_>, entities: &str) -> PyResult<()> {
        py.detach(|| self.0.change_entities(EntityChange::Upsert(entities))).or_raise(py)
    }

    /// Removes entities, each a pair of type and id; what is not there is passed over.
    fn remove_entities(&self, py: Python<'_>, uids: Vec<(String, String)>) -> PyResult<()> {
        let uids: Vec<(&str, &str)> = uids.iter().map(|(kind, id)| (kind.as_str(), id.as_str())).collect();
        let removed: Result<()> = self.0.change_entities(EntityChange::Remove(&uids));
        removed.or_raise(py)
    }

    /// Decides; every doubt is a denial.
    #[pyo3(signature = (agent, action, resource, context=None))]
    fn check_nowait(&self, agent: &str, action: &str, resource: &str, context: Option<&Bound<'_, PyDict>>) -> PyResult<Decision> {
        let held = hold(context)?;
        let context = borrow(&held)?;
        Ok(Decision { ruling: self.0.rule(&CheckRef { agent, action, resource, context: &context }) })
    }

    /// SHA-256 of the installed set, over its policies and schema; None where none is installed.
    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.digest().map(|digest| PyBytes::new(py, &digest))
    }
}

fn finding<'py>(py: Python<'py>, found: &Finding, text: &str) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let severity = match found.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    dict.set_item("severity", severity)?;
    dict.set_item("rule", found.rule)?;
    dict.set_item("policy", found.policy.as_deref())?;
    dict.set_item("message", &found.message)?;
    dict.set_item("help", found.help.as_deref())?;
    let position = found.position(text);
    dict.set_item("line", position.map(|(line, _)| line))?;
    dict.set_item("column", position.map(|(_, column)| column))?;
    dict.set_item("length", found.span.map(|(_, length)| length))?;
    Ok(dict)
}

/// What is wrong with a policy set, errors first; nothing is installed.
#[pyfunction]
#[pyo3(signature = (policies, schema=None, entities=None))]
pub fn policy_findings<'py>(
    py: Python<'py>,
    policies: &str,
    schema: Option<&str>,
    entities: Option<&str>,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let sources = Sources { policies, schema, entities: entities.unwrap_or_default() };
    let found = py.detach(|| match creto_authz::parse(&sources, &Limits::DEFAULT) {
        Ok(parsed) => parsed.warnings,
        Err(found) => found,
    });
    found.iter().map(|f| finding(py, f, policies)).collect()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Decision>()?;
    module.add_class::<PolicyEngine>()?;
    module.add_function(wrap_pyfunction!(policy_findings, module)?)
}
