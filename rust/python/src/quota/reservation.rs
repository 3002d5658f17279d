//! What is held for one act.

use super::{Quantities, time};
use crate::error::IntoPy;
use creto_enablement_common::ports::{QuotaEnforcer as _, ReservationId};
use creto_enablement_common::{Result, Timestamp};
use creto_metering::QuotaEnforcer as Enforcer;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is held for one act: commit it, release it, or use it as a context manager (commits; releases on an exception).
///
/// Example:
///     >>> from creto.metering import QuotaEnforcer
///     >>> quota = QuotaEnforcer([{"scope": "team", "meter": "m", "limit": 10}])
///     >>> with quota.reserve_nowait(("acme", "research"), {"m": 8}) as held:
///     ...     held.commit({"m": 5})
///     >>> held.open, quota.counters()[0]["used"]
///     (False, 5)
#[pyclass(frozen, module = "creto._core")]
pub struct Reservation {
    enforcer: Arc<Enforcer>,
    id: ReservationId,
    open: AtomicBool,
}

impl Reservation {
    pub(super) fn of(enforcer: Arc<Enforcer>, id: ReservationId) -> Self {
        Self { enforcer, id, open: AtomicBool::new(true) }
    }

    fn settle(&self, usage: Option<&Quantities<'_>>, now: Timestamp) -> PyResult<Result<()>> {
        if !self.open.swap(false, Ordering::AcqRel) {
            return Ok(Ok(()));
        }
        Ok(match usage {
            None => self.enforcer.commit_held(self.id, now),
            Some(usage) => self.enforcer.commit(self.id, &usage.refs()?, now),
        })
    }
}

#[pymethods]
impl Reservation {
    /// Its number.
    #[getter]
    fn id(&self) -> u64 {
        self.id.0
    }

    /// True until it is committed or released.
    #[getter]
    fn open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Turns what is held into what was used; without `usage`, all of it. A second call changes nothing.
    #[pyo3(signature = (usage = None, *, now = None))]
    fn commit<'py>(&self, py: Python<'py>, usage: Option<&Bound<'py, PyDict>>, now: Option<u64>) -> PyResult<()> {
        let usage = usage.map(|usage| Quantities::read(py, usage)).transpose()?;
        self.settle(usage.as_ref(), time(&self.enforcer, now))?.or_raise(py)
    }

    /// Gives back all that is held.
    #[pyo3(signature = (*, now = None))]
    fn release(&self, py: Python<'_>, now: Option<u64>) -> PyResult<()> {
        if self.open.swap(false, Ordering::AcqRel) {
            self.enforcer.release(self.id, time(&self.enforcer, now)).or_raise(py)?;
        }
        Ok(())
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __exit__(&self, py: Python<'_>, kind: &Bound<'_, PyAny>, _value: &Bound<'_, PyAny>, _trace: &Bound<'_, PyAny>) -> PyResult<bool> {
        if kind.is_none() {
            self.settle(None, time(&self.enforcer, None))?.or_raise(py)?;
        } else {
            self.release(py, None)?;
        }
        Ok(false)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Forgotten, not settled: what it holds must not be lost until it is overdue.
        if *self.open.get_mut() {
            let _ = self.enforcer.release(self.id, time(&self.enforcer, None));
        }
    }
}
