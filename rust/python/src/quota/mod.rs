//! The quota side of `creto-metering` for Python.

mod enforcer;
mod fork;
mod lease;
mod prepared;
mod reservation;
mod shown;

pub use enforcer::{QuotaEnforcer, check_quota_rules};
pub use fork::{quota_fork_begins, quota_fork_over, quota_fork_over_in_child};
pub use prepared::{PreparedQuota, QuotaBatch};
pub use reservation::Reservation;

use crate::lent;
use creto_enablement_common::{Error, Timestamp, Usage};
use creto_metering::QuotaEnforcer as Enforcer;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use rustix::time::{ClockId, clock_gettime};
use smallvec::SmallVec;

/// The names of a path, in a tuple, that nobody can change while they are read.
pub(crate) type Names<'py> = Bound<'py, PyTuple>;

/// The time of a call: as given, else by the coarsest clock that the rules in force allow.
pub(crate) fn time(enforcer: &Enforcer, now: Option<u64>) -> Timestamp {
    match now {
        Some(word) => Timestamp::from_word(word),
        None if enforcer.coarse() => coarse_time(),
        None => creto_consensus::consensus_timestamp(),
    }
}

/// The kernel's coarse clock: milliseconds late at most, and read in a third of the time.
fn coarse_time() -> Timestamp {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    let micros = time.tv_sec * 1_000_000 + time.tv_nsec / 1_000;
    Timestamp::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn not_a_name(value: &Bound<'_, PyAny>) -> Error {
    Error::invalid(format!("a quota path holds names, not {}", value.get_type().name().map_or_else(|_| "this".into(), |n| n.to_string())))
}

pub(crate) fn names<'py>(py: Python<'py>, path: &Bound<'py, PyAny>) -> PyResult<Names<'py>> {
    if let Ok(tuple) = path.cast::<PyTuple>() {
        return Ok(tuple.clone());
    }
    if let Ok(list) = path.cast::<PyList>() {
        return Ok(list.to_tuple());
    }
    Err(crate::error::to_py(py, &Error::invalid("a quota path is a list or a tuple of names, organisation first")))
}

pub(crate) fn texts<'a>(names: &'a Names<'_>) -> PyResult<SmallVec<[&'a str; 8]>> {
    let mut texts = SmallVec::new();
    for name in names.iter_borrowed() {
        if !name.is_instance_of::<PyString>() {
            return Err(crate::error::to_py(names.py(), &not_a_name(&name)));
        }
        texts.push(name.extract()?);
    }
    Ok(texts)
}

pub(crate) fn amount<'a>(py: Python<'_>, meter: impl Fn() -> &'a str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    whole(py, || format!("usage of `{}`", meter()), value)
}

pub(crate) fn whole(py: Python<'_>, what: impl Fn() -> String, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let units = value.extract::<i64>().ok().and_then(|units| u64::try_from(units).ok());
    units.ok_or_else(|| crate::error::to_py(py, &Error::invalid(format!("{}: {value}: write a whole number from 0 to 2^63-1", what()))))
}

/// Asks with the names of a path and usage, which are lent where they are what they nearly always are.
#[inline]
fn with_use<R>(path: &Bound<'_, PyAny>, usage: &Bound<'_, PyDict>, ask: impl Fn(&[&str], Usage<'_>) -> R + Sync) -> PyResult<R> {
    if let Some(answer) = lent::with_path(path, usage, &ask) {
        return Ok(answer);
    }
    let (path, usage) = (names(path.py(), path)?, Quantities::read(path.py(), usage)?);
    Ok(ask(&texts(&path)?, &usage.refs()?))
}

pub(crate) struct Quantities<'py>(SmallVec<[(Bound<'py, PyString>, u64); 4]>);

impl<'py> Quantities<'py> {
    pub(crate) fn read(py: Python<'py>, usage: &Bound<'py, PyDict>) -> PyResult<Self> {
        let mut list = SmallVec::with_capacity(usage.len());
        for (meter, value) in usage {
            let meter = meter
                .cast_into::<PyString>()
                .map_err(|e| crate::error::to_py(py, &Error::invalid(format!("a meter is a name, not {}", e.into_inner()))))?;
            let units = amount(py, || meter.to_str().unwrap_or("?"), &value)?;
            list.push((meter, units));
        }
        Ok(Self(list))
    }

    pub(crate) fn refs(&self) -> PyResult<SmallVec<[(&str, u64); 4]>> {
        self.0.iter().map(|(meter, units)| Ok((meter.to_str()?, *units))).collect()
    }
}
