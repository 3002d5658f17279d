//! `creto-authz` for Python.

use crate::decision::{Decision, decision};
use crate::error::IntoPy;
use crate::lent::with_context;
use creto_authz::{
    Engine, EntityChange, Finding, Limits, Lines, Prepared as InnerPrepared, Role, Roster as InnerRoster, Severity, Sources, View,
};
use creto_enablement_common::{CheckRef, Digest, Error, Result};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict};
use std::sync::Arc;

/// Decides by the installed policy set; with none installed, everything is denied.
///
/// Example:
///     >>> from creto.authz import PolicyEngine
///     >>> engine = PolicyEngine()
///     >>> _, warnings = engine.install('permit (principal, action, resource) when { context has purpose };')
///     >>> engine.check_nowait("spiffe://t/agent/a", "tool:call", 'Tool::"x"', {"purpose": "test"}).outcome
///     'allow'
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
        let lines = Lines::of(policies);
        Ok((PyBytes::new(py, &digest), warnings.iter().map(|w| finding(py, w, &lines)).collect::<PyResult<_>>()?))
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
    fn check_nowait(
        &self,
        py: Python<'_>,
        agent: &str,
        action: &str,
        resource: &str,
        context: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<Decision>> {
        let view: &View = &self.0.view();
        let told = view.begin(agent, action, resource, |begun| with_context(context, |context| begun.tell(context)))?;
        decision(py, view, told)
    }

    /// An agent and an action looked up once, for repeated checks; good whatever is installed later.
    #[pyo3(signature = (agent, action, resource=None))]
    fn prepare(&self, py: Python<'_>, agent: &str, action: &str, resource: Option<&str>) -> PyResult<Prepared> {
        Ok(Prepared { engine: Arc::clone(&self.0), inner: self.0.prepare(agent, action, resource).or_raise(py)? })
    }

    /// Names looked up once, for many checks: `role` is "principal", "action" or "resource"; bare resources are of type `kind`.
    #[pyo3(signature = (role, names, kind=None))]
    fn roster(&self, py: Python<'_>, role: &str, names: Vec<String>, kind: Option<&str>) -> PyResult<Roster> {
        let role = match (role, kind) {
            ("principal", _) => Role::Principal,
            ("action", _) => Role::Action,
            ("resource", kind) => Role::Resource(kind.unwrap_or("")),
            (other, _) => return Err(crate::error::to_py(py, &Error::invalid(format!("`{other}` is not principal, action or resource")))),
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        py.detach(|| self.0.roster(role, &names)).map(Roster).or_raise(py)
    }

    /// Decides many acts without circumstances: three rosters, and for each act the places of its parts in them, as three buffers of 32-bit
    /// unsigned integers of one length. Gives a byte for each: 0 denied, 1 allowed, 2 a human has to agree.
    #[allow(clippy::too_many_arguments, reason = "three rosters and three columns")]
    fn check_places<'py>(
        &self,
        py: Python<'py>,
        principals: &Roster,
        actions: &Roster,
        resources: &Roster,
        principal: &Bound<'py, PyAny>,
        action: &Bound<'py, PyAny>,
        resource: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyByteArray>> {
        let column = |buffer: &Bound<'py, PyAny>| PyBuffer::<u32>::get(buffer)?.to_vec(py);
        let (principal, action, resource) = (column(principal)?, column(action)?, column(resource)?);
        if principal.len() != action.len() || action.len() != resource.len() {
            return Err(crate::error::to_py(py, &Error::invalid("the three columns differ in length")));
        }
        let codes = py.detach(|| {
            let mut codes = Vec::with_capacity(principal.len());
            let places = principal.iter().zip(&action).zip(&resource).map(|((p, a), r)| [*p, *a, *r]);
            self.0.codes([&principals.0, &actions.0, &resources.0], places, |code| codes.push(code));
            codes
        });
        Ok(PyByteArray::new(py, &codes))
    }

    /// Every policy whose scope fits, with its conditions and their values.
    #[pyo3(signature = (agent, action, resource, context=None))]
    fn explain<'py>(
        &self,
        py: Python<'py>,
        agent: &str,
        action: &str,
        resource: &str,
        context: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let explained = with_context(context, |context| self.0.explain(&CheckRef { agent, action, resource, context }))?.or_raise(py)?;
        explained
            .iter()
            .map(|policy| {
                let dict = PyDict::new(py);
                dict.set_item("policy", &policy.policy)?;
                dict.set_item("effect", if policy.forbid { "forbid" } else { "permit" })?;
                dict.set_item("oversight", policy.oversight.as_deref())?;
                dict.set_item("holds", policy.holds)?;
                let conditions = policy
                    .conditions
                    .iter()
                    .map(|condition| {
                        let dict = PyDict::new(py);
                        dict.set_item("word", condition.word)?;
                        dict.set_item("text", &condition.text)?;
                        dict.set_item("value", &condition.value)?;
                        dict.set_item("given", &condition.given)?;
                        dict.set_item("reached", condition.reached)?;
                        Ok(dict)
                    })
                    .collect::<PyResult<Vec<_>>>()?;
                dict.set_item("conditions", conditions)?;
                Ok(dict)
            })
            .collect()
    }

    /// The names of the context that the policies which may apply to the action look at; `*` for the context as a whole.
    fn reads(&self, py: Python<'_>, action: &str) -> PyResult<Vec<String>> {
        self.0.reads(action).or_raise(py)
    }

    /// The ids of the policies that serve.
    fn policy_ids(&self) -> Vec<String> {
        self.0.policy_ids().iter().map(ToString::to_string).collect()
    }

    /// How many policies serve, and the bytes of their compiled form.
    #[getter]
    fn size(&self) -> (usize, usize) {
        let size = self.0.size();
        (size.policies, size.policy_bytes)
    }

    /// SHA-256 of the installed set, over its policies and schema; None where none is installed.
    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.digest().map(|digest| PyBytes::new(py, &digest))
    }
}

/// Names looked up once, for many checks.
#[pyclass(frozen, module = "creto._core")]
pub struct Roster(InnerRoster);

#[pymethods]
impl Roster {
    fn __len__(&self) -> usize {
        self.0.len()
    }
}

/// An agent and an action looked up once, for repeated checks.
#[pyclass(frozen, module = "creto._core")]
pub struct Prepared {
    engine: Arc<Engine>,
    inner: InnerPrepared,
}

#[pymethods]
impl Prepared {
    /// Decides; `resource` names it where it was not prepared.
    #[pyo3(signature = (resource=None, context=None))]
    fn check_nowait(&self, py: Python<'_>, resource: Option<&str>, context: Option<&Bound<'_, PyDict>>) -> PyResult<Py<Decision>> {
        let view: &View = &self.engine.view();
        let told = with_context(context, |context| view.tell_prepared(&self.inner, resource, context))?;
        decision(py, view, told)
    }
}

pub(crate) fn finding<'py>(py: Python<'py>, found: &Finding, lines: &Lines<'_>) -> PyResult<Bound<'py, PyDict>> {
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
    let position = found.position(lines);
    dict.set_item("line", position.map(|(line, _)| line))?;
    dict.set_item("column", position.map(|(_, column)| column))?;
    dict.set_item("length", found.span.map(|(_, length)| length))?;
    Ok(dict)
}

/// What is wrong with a policy set, errors first, and what may not mean what it says; nothing is installed.
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
        Ok(parsed) => parsed.warnings.into_iter().chain(creto_authz::lint(&parsed.policies)).chain(creto_authz::hidden(policies)).collect(),
        Err(found) => found.into_iter().chain(creto_authz::hidden(policies)).collect::<Vec<_>>(),
    });
    // A finding's place is in the text that it is about.
    let lines = Lines::of(policies);
    found
        .iter()
        .map(|f| match f.rule {
            "schema" => finding(py, f, &Lines::of(schema.unwrap_or_default())),
            "entities" => finding(py, f, &Lines::of(entities.unwrap_or_default())),
            _ => finding(py, f, &lines),
        })
        .collect()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<crate::decision::Decision>()?;
    module.add_class::<PolicyEngine>()?;
    module.add_class::<Prepared>()?;
    module.add_class::<Roster>()?;
    module.add_function(wrap_pyfunction!(policy_findings, module)?)
}
