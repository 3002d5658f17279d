//! Paths that were looked up once: one of them, or many for arrays of checks.

use super::fork::apart;
use super::reservation::Reservation;
use super::shown::refusal_dict;
use super::{amount, names, texts, time};
use crate::error::IntoPy;
use creto_enablement_common::Error;
use creto_enablement_common::sync::RwLock;
use creto_metering::{Amounts, Batch, Prepared, QuotaEnforcer as Enforcer};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict, PyTuple};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// A path and its meters, looked up once.
#[pyclass(frozen, module = "creto._core")]
pub struct PreparedQuota {
    pub(super) enforcer: Arc<Enforcer>,
    pub(super) prepared: Prepared,
    pub(super) path: Vec<Box<str>>,
    pub(super) meters: Vec<Box<str>>,
    pub(super) hold: Duration,
}

#[pymethods]
impl PreparedQuota {
    /// Takes `units` of the first meter for good; False where a quota has no room.
    #[pyo3(signature = (units = 1, /))]
    fn take(&self, units: u64) -> bool {
        self.prepared.take(units, time(&self.enforcer, None))
    }

    /// Holds one amount for each meter, or raises QuotaExceededError; without any, 1 of the only meter.
    #[pyo3(signature = (units: "int | None" = None, /, *more: "int"))]
    fn reserve<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = given)] units: Option<&Bound<'py, PyAny>>,
        more: &Bound<'py, PyTuple>,
    ) -> PyResult<Reservation> {
        let mut list: SmallVec<[u64; 4]> = SmallVec::new();
        for (place, value) in units.map(Bound::as_borrowed).into_iter().chain(more.iter_borrowed()).enumerate() {
            list.push(amount(py, || self.meters.get(place).map_or("", AsRef::as_ref), &value)?);
        }
        if list.is_empty() && self.meters.len() == 1 {
            list.push(1);
        }
        let id = self.prepared.reserve(&list, time(&self.enforcer, None), self.hold).or_raise(py)?;
        Ok(Reservation::of(Arc::clone(&self.enforcer), id))
    }

    /// Why `units` of the first meter would not fit, as a dict; None where they would.
    #[pyo3(signature = (units = 1, /))]
    fn explain<'py>(&self, py: Python<'py>, units: u64) -> PyResult<Option<Bound<'py, PyDict>>> {
        let path: Vec<&str> = self.path.iter().map(AsRef::as_ref).collect();
        let meter = self.meters.first().map(AsRef::as_ref).unwrap_or_default();
        let refusal = self.enforcer.explain(&path, &[(meter, units)], time(&self.enforcer, None)).or_raise(py)?;
        refusal.map(|refusal| refusal_dict(py, &refusal)).transpose()
    }
}

/// An argument that stands apart from those that follow it, so that Python makes no tuple of one; None given is not none given.
fn given<'a, 'py>(units: &'a Bound<'py, PyAny>) -> PyResult<Option<&'a Bound<'py, PyAny>>> {
    Ok(Some(units))
}

/// Chains of one meter, looked up once, for arrays of checks.
#[pyclass(frozen, module = "creto._core")]
pub struct QuotaBatch {
    pub(super) enforcer: Arc<Enforcer>,
    pub(super) batch: RwLock<Batch>,
}

#[pymethods]
impl QuotaBatch {
    /// Adds a chain; its number.
    fn add<'py>(&self, py: Python<'py>, path: &Bound<'py, PyAny>, meter: &str) -> PyResult<u32> {
        let path = names(py, path)?;
        self.batch.write().add(&self.enforcer, &texts(&path)?, meter).or_raise(py)
    }

    fn __len__(&self) -> usize {
        self.batch.read().len()
    }

    /// Takes units (a number, or one uint64 for each) for the chains of a uint32 array, in turn; one byte of 0 or 1 for each.
    fn take<'py>(&self, py: Python<'py>, which: PyBuffer<u32>, units: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyByteArray>> {
        let contiguous = || Error::invalid("the array must be contiguous");
        let which: Vec<u32> = which.to_vec(py).map_err(|_| contiguous()).or_raise(py)?;
        let list: Option<Vec<u64>> = match units.extract::<u64>() {
            Ok(_) => None,
            Err(_) => Some(PyBuffer::<u64>::get(units)?.to_vec(py)?),
        };
        let amounts = match &list {
            Some(list) => Amounts::List(list),
            None => Amounts::Each(units.extract()?),
        };
        let mut fitted = vec![0_u8; which.len()];
        let now = time(&self.enforcer, None);
        apart(py, || self.batch.read().take(&which, amounts, now, &mut fitted)).or_raise(py)?;
        Ok(PyByteArray::new(py, &fitted))
    }
}
