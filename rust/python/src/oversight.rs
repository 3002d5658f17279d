//! `creto-oversight` for Python: acts from Python values, the step from one state to the next, grants.

use crate::crypto::{SigningKey, VerifyingKey};
use crate::error::IntoPy;
use creto_crypto::Suite;
use creto_enablement_common::{Error, Result};
use creto_oversight::{Act, Answer, Encoded, Event, Grant, State, Statement, Terms};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple};

/// As deep as `Encoded` takes; checked on the way down so that no value can exhaust the stack.
const DEEPEST: usize = 64;

fn encode(value: &Bound<'_, PyAny>, at: &str, depth: usize) -> PyResult<Encoded> {
    let py = value.py();
    if depth > DEEPEST {
        return Err(crate::error::to_py(py, &Error::invalid(format!("`{at}` nests deeper than {DEEPEST} levels"))));
    }
    if value.is_none() {
        return Ok(Encoded::null());
    }
    if let Ok(flag) = value.cast_exact::<PyBool>() {
        return Ok(Encoded::boolean(flag.is_true()));
    }
    if let Ok(text) = value.cast_exact::<PyString>() {
        return Ok(Encoded::text(text.to_str()?));
    }
    if value.is_exact_instance_of::<PyInt>() {
        return Encoded::integer(value.str()?.to_str()?).or_raise(py);
    }
    if let Ok(number) = value.cast_exact::<PyFloat>() {
        return Encoded::float(number.value()).or_raise(py);
    }
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        return Ok(Encoded::bytes(bytes.as_bytes()));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let members = value.try_iter()?.map(|member| encode(&member?, at, depth + 1)).collect::<PyResult<Vec<_>>>()?;
        return Ok(Encoded::list(members));
    }
    if value.is_instance_of::<PySet>() || value.is_instance_of::<PyFrozenSet>() {
        let members = value.try_iter()?.map(|member| encode(&member?, at, depth + 1)).collect::<PyResult<Vec<_>>>()?;
        return Encoded::set(members).or_raise(py);
    }
    if let Ok(fields) = value.cast::<PyDict>() {
        return record(fields, at, depth);
    }
    extension(value, at)
}

fn record(fields: &Bound<'_, PyDict>, at: &str, depth: usize) -> PyResult<Encoded> {
    let py = fields.py();
    if let Some(form) = policy_form(fields)? {
        return Ok(form);
    }
    let mut encoded = Vec::with_capacity(fields.len());
    for (name, member) in fields {
        let Ok(name) = name.cast::<PyString>() else {
            return Err(crate::error::to_py(py, &Error::invalid(format!("`{at}` has a name that is not text: `{name}`"))));
        };
        let name = name.to_str()?;
        encoded.push((name.to_owned(), encode(&member, name, depth + 1)?));
    }
    Encoded::record(encoded).or_raise(py)
}

/// An entity or extension value in the policy language's own JSON form.
fn policy_form(fields: &Bound<'_, PyDict>) -> PyResult<Option<Encoded>> {
    let parts = |form: &str, first: &str, second: &str| -> PyResult<Option<(String, String)>> {
        let Some(inner) = fields.get_item(form)? else { return Ok(None) };
        let Ok(inner) = inner.cast_into::<PyDict>() else { return Ok(None) };
        match (inner.get_item(first)?, inner.get_item(second)?, inner.len(), fields.len()) {
            (Some(first), Some(second), 2, 1) => Ok(Some((first.extract()?, second.extract()?))),
            _ => Ok(None),
        }
    };
    if let Some((kind, id)) = parts("__entity", "type", "id")? {
        return Ok(Some(Encoded::entity(&kind, &id)));
    }
    Ok(parts("__extn", "fn", "arg")?.map(|(constructor, text)| Encoded::extension(&constructor, &text)))
}

/// The values that `creto.oversight.encoding` knows how to spell as extension values.
fn extension(value: &Bound<'_, PyAny>, at: &str) -> PyResult<Encoded> {
    let py = value.py();
    let spelt = py.import("creto.oversight._encoding")?.getattr("spell")?.call1((value,))?;
    if let Ok((constructor, text)) = spelt.extract::<(String, String)>() {
        return Ok(Encoded::extension(&constructor, &text));
    }
    let kind = value.get_type().name()?;
    let what = format!(
        "`{at}` is a `{kind}`, which has no stated encoding, so nobody could agree to exactly this act: pass text, whole numbers, \
         finite floats, bytes, Decimal, dates and times with a zone, IP addresses, or lists, sets and dicts of these"
    );
    Err(crate::error::to_py(py, &Error::invalid(what)))
}

/// The act that these Python values describe; the gate asks its grants about the same one.
#[allow(clippy::too_many_arguments, reason = "the parts of an act")]
pub fn act_of(
    py: Python<'_>,
    agent: &str,
    chain: &[&str],
    chain_digest: Option<&[u8]>,
    action: &str,
    resource: &str,
    context: Option<&Bound<'_, PyDict>>,
    usage: Option<&Bound<'_, PyDict>>,
    suite: Suite,
) -> PyResult<Act> {
    let context = match context {
        Some(context) => record(context, "context", 0)?,
        None => Encoded::record([]).or_raise(py)?,
    };
    let usage = match usage {
        Some(usage) => usage.iter().map(|(meter, quantity)| Ok((meter.extract()?, quantity.extract()?))).collect::<PyResult<Vec<_>>>()?,
        None => Vec::new(),
    };
    let digest = match chain_digest {
        Some(digest) => digest.to_vec(),
        None => Act::chain_of(chain, suite).or_raise(py)?,
    };
    Act::new(agent, &digest, action, resource, context, &usage).or_raise(py)
}

/// An act, as it is agreed to: who does what, for whom, to which resource, in which circumstances, at which cost.
#[pyclass(frozen, eq, name = "Act", module = "creto._core")]
pub struct PyAct {
    /// The act itself.
    pub act: Act,
    suite: Suite,
    chain: Vec<String>,
}

impl PartialEq for PyAct {
    fn eq(&self, other: &Self) -> bool {
        // The names along the chain are in its digest already.
        self.act == other.act && self.suite == other.suite
    }
}

impl PyAct {
    fn bytes<'py>(py: Python<'py>, made: Result<Vec<u8>>) -> PyResult<Bound<'py, PyBytes>> {
        made.or_raise(py).map(|bytes| PyBytes::new(py, &bytes))
    }
}

fn terms<'a>(policy: &'a str, nonce: &'a [u8], expiry_us: u64) -> Result<Terms<'a>> {
    let nonce = nonce.try_into().map_err(|_| Error::invalid(format!("a nonce has 16 bytes, this one {}", nonce.len())))?;
    Ok(Terms { policy, nonce, expiry: expiry_us })
}

#[pymethods]
impl PyAct {
    #[new]
    #[pyo3(signature = (agent, action, resource, *, chain = Vec::new(), chain_digest = None, context = None, usage = None, suite = "standard"))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        py: Python<'_>,
        agent: &str,
        action: &str,
        resource: &str,
        chain: Vec<String>,
        chain_digest: Option<&[u8]>,
        context: Option<Bound<'_, PyDict>>,
        usage: Option<Bound<'_, PyDict>>,
        suite: &str,
    ) -> PyResult<Self> {
        let suite = Suite::parse(suite).map_err(Error::from).or_raise(py)?;
        let links: Vec<&str> = chain.iter().map(String::as_str).collect();
        let act = act_of(py, agent, &links, chain_digest, action, resource, context.as_ref(), usage.as_ref(), suite)?;
        Ok(Self { act, suite, chain })
    }

    /// Reads what `core` wrote.
    #[staticmethod]
    #[pyo3(signature = (document, suite = "standard", *, chain = Vec::new()))]
    fn from_core(py: Python<'_>, document: &[u8], suite: &str, chain: Vec<String>) -> PyResult<Self> {
        let suite = Suite::parse(suite).map_err(Error::from).or_raise(py)?;
        Ok(Self { act: Act::from_core(document).or_raise(py)?, suite, chain })
    }

    /// The canonical document without terms (RFC 8785): what two requests for the same act have in common.
    fn core<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Self::bytes(py, self.act.core())
    }

    /// The digest of `core()`.
    fn core_digest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Self::bytes(py, self.act.core_digest(self.suite).map(|digest| digest.bytes().to_vec()))
    }

    /// The canonical document that a grant agrees to.
    fn document<'py>(&self, py: Python<'py>, policy: &str, nonce: &[u8], expiry_us: u64) -> PyResult<Bound<'py, PyBytes>> {
        Self::bytes(py, terms(policy, nonce, expiry_us).and_then(|terms| self.act.document(&terms)))
    }

    /// The digest of `document(...)`: SHA-256, or SHA-384 for `cnsa2`.
    fn digest<'py>(&self, py: Python<'py>, policy: &str, nonce: &[u8], expiry_us: u64) -> PyResult<Bound<'py, PyBytes>> {
        let digest = terms(policy, nonce, expiry_us).and_then(|terms| self.act.digest(&terms, self.suite));
        Self::bytes(py, digest.map(|digest| digest.bytes().to_vec()))
    }

    /// Who acts.
    #[getter]
    fn agent(&self) -> &str {
        self.act.agent()
    }

    /// `namespace:verb`.
    #[getter]
    fn action(&self) -> &str {
        self.act.action()
    }

    /// On what.
    #[getter]
    fn resource(&self) -> &str {
        self.act.resource()
    }

    /// The names along the delegation chain, the first delegator first.
    #[getter]
    fn chain(&self) -> Vec<String> {
        self.chain.clone()
    }

    /// The suite that chooses the digest.
    #[getter]
    fn suite(&self) -> &'static str {
        self.suite.name()
    }

    fn __repr__(&self) -> String {
        format!("Act({:?} on {:?} by {:?})", self.act.action(), self.act.resource(), self.act.agent())
    }
}

/// A verified agreement to one act under one policy; only `verify` makes one.
#[pyclass(frozen, eq, name = "Grant", module = "creto._core")]
#[derive(PartialEq)]
pub struct PyGrant(pub Grant);

#[pymethods]
impl PyGrant {
    /// Verifies a DSSE envelope: signed by exactly this approver's keys, about exactly this act, an agreement, not expired.
    #[staticmethod]
    fn verify(py: Python<'_>, envelope: &str, act: &PyAct, approver: &str, key: &VerifyingKey, now_us: u64) -> PyResult<Self> {
        Grant::verify(envelope, &act.act, approver, &key.0, now_us).map(Self).or_raise(py)
    }

    /// Verifies that the approver has denied exactly this act.
    #[staticmethod]
    fn verify_denial(py: Python<'_>, envelope: &str, act: &PyAct, approver: &str, key: &VerifyingKey) -> PyResult<()> {
        Grant::verify_denial(envelope, &act.act, approver, &key.0).or_raise(py)
    }

    /// True where this is exactly the act that was agreed to.
    fn covers(&self, py: Python<'_>, act: &PyAct) -> PyResult<bool> {
        self.0.covers(&act.act).or_raise(py)
    }

    /// The oversight request that was answered.
    #[getter]
    fn request(&self) -> &str {
        self.0.request()
    }

    /// The policy that the agreement is for.
    #[getter]
    fn policy_id(&self) -> &str {
        self.0.policy()
    }

    /// Who agreed.
    #[getter]
    fn approver(&self) -> &str {
        self.0.approver()
    }

    /// Why.
    #[getter]
    fn reason(&self) -> &str {
        self.0.reason()
    }

    /// When, in microseconds since the Unix epoch.
    #[getter]
    fn decided_us(&self) -> u64 {
        self.0.decided()
    }

    /// How long it is good, in microseconds since the Unix epoch.
    #[getter]
    fn expiry_us(&self) -> u64 {
        self.0.expiry()
    }

    /// The digest of the act.
    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.digest().bytes())
    }
}

/// Signs an approver's answer about an act and returns the DSSE envelope.
#[pyfunction]
#[pyo3(signature = (key, act, *, request, policy, nonce, expiry_us, approver, approved, reason, decided_us))]
#[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
pub fn oversight_answer(
    py: Python<'_>,
    key: &SigningKey,
    act: &PyAct,
    request: &str,
    policy: &str,
    nonce: &[u8],
    expiry_us: u64,
    approver: &str,
    approved: bool,
    reason: &str,
    decided_us: u64,
) -> PyResult<String> {
    let answer = if approved { Answer::Approved } else { Answer::Denied };
    terms(policy, nonce, expiry_us)
        .and_then(|terms| Statement { request, terms, approver, answer, reason, decided: decided_us }.sign(&act.act, &key.0))
        .or_raise(py)
}

/// The state of an oversight request after an event; refused where that may not follow.
#[pyfunction]
pub fn oversight_after(py: Python<'_>, state: &str, event: &str) -> PyResult<&'static str> {
    State::parse(state).and_then(|state| state.after(Event::parse(event)?)).map(State::name).or_raise(py)
}

/// True where nothing can happen to a request in this state any more.
#[pyfunction]
pub fn oversight_is_final(py: Python<'_>, state: &str) -> PyResult<bool> {
    State::parse(state).map(State::is_final).or_raise(py)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyAct>()?;
    module.add_class::<PyGrant>()?;
    module.add_function(wrap_pyfunction!(oversight_answer, module)?)?;
    module.add("OVERSIGHT_STATES", PyTuple::new(module.py(), State::ALL.map(State::name))?)?;
    module.add("OVERSIGHT_EVENTS", PyTuple::new(module.py(), Event::ALL.map(Event::name))?)?;
    module.add_function(wrap_pyfunction!(oversight_after, module)?)?;
    module.add_function(wrap_pyfunction!(oversight_is_final, module)?)
}
