//! What policy says about one act, for Python.

use creto_authz::{Ruling, Told, View};
use creto_enablement_common::Decision as Inner;
use creto_enablement_common::ports::AuditWhen;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;
use std::sync::OnceLock;

/// What policy says about one act; it is true where the act is allowed.
///
/// Example:
///     >>> import creto
///     >>> authz = creto.AuthzClient()
///     >>> _ = authz.install('@id("tools") permit (principal, action == Action::"tool:call", resource);')
///     >>> decision = authz.check_nowait("spiffe://creto.local/agent/a", "tool:call", "search")
///     >>> bool(decision), decision.outcome, decision.permit
///     (True, 'allow', 'tools')
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

    /// Seconds since the version that decided was made, by a set installed or entities changed.
    #[getter]
    fn age(&self) -> f64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        now.saturating_sub(self.ruling.made) as f64 / 1e6
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

/// Decisions of one version that many acts share: each is an object that never changes, made when it is first given.
struct Shared(Box<[OnceLock<Chunk>]>);

/// Places of one chunk, so that a version that answers few acts takes little room.
const CHUNK: usize = 64;

type Chunk = Box<[PyOnceLock<Py<Decision>>; CHUNK]>;

/// The object for what was told.
#[inline]
pub fn decision(py: Python<'_>, view: &View, told: Told) -> PyResult<Py<Decision>> {
    let place = match told {
        Told::Common(place) => place as usize,
        Told::Own(ruling) => return Py::new(py, Decision { ruling: *ruling }),
    };
    let shared = view.beside(|| Shared((0..view.commons().div_ceil(CHUNK)).map(|_| OnceLock::new()).collect()));
    let slot = shared.and_then(|shared| {
        let chunk = shared.0.get(place / CHUNK)?.get_or_init(|| Box::new([const { PyOnceLock::new() }; CHUNK]));
        chunk.get(place % CHUNK)
    });
    let make = || Py::new(py, Decision { ruling: view.common(place as u32) });
    match slot {
        Some(slot) => slot.get_or_try_init(py, make).map(|decision| decision.clone_ref(py)),
        None => make(),
    }
}
