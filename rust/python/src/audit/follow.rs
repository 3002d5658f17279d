//! What has come to a shard since it was last asked, as records or as rows of an index.

use super::record::to_dict;
use crate::error::IntoPy;
use creto_audit::terms::{self, Reading};
use creto_audit::{Follower, encoding};
use creto_enablement_common::Result;
use creto_enablement_common::sync::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

/// A place in one shard; what has come since is read once.
#[pyclass(frozen, module = "creto._core")]
pub struct LedgerFollower(Mutex<(Follower, Reading)>);

/// Rows of an index: records, parties, texts, as tuples.
type Rows<'py> = (Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyList>);

impl LedgerFollower {
    /// Follows from where the follower stands.
    pub fn new(follower: Follower) -> Self {
        Self(Mutex::new((follower, Reading::default())))
    }
}

#[pymethods]
impl LedgerFollower {
    /// The index of the record that comes next.
    #[getter]
    fn next(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.0.lock().0.next())
    }

    /// The records that have come since last asked, at most so many, in order, as dicts.
    #[pyo3(signature = (most = u64::MAX))]
    fn poll<'py>(&self, py: Python<'py>, most: u64) -> PyResult<Bound<'py, PyList>> {
        let mut records = Vec::new();
        let name = py
            .detach(|| {
                let (follower, _) = &mut *self.0.lock();
                follower.poll_some(most, |index, entry| records.push((index, encoding::decode(entry))))?;
                Result::<String>::Ok(follower.shard().name().to_owned())
            })
            .or_raise(py)?;
        let list = PyList::empty(py);
        for (index, record) in records {
            list.append(to_dict(py, &name, index, &record.or_raise(py)?)?)?;
        }
        Ok(list)
    }

    /// The same as rows for an index, which say `shard` in their second place: (time, shard, at, what, resource, act, id, kind, ended, subject) for each
    /// record, (party, time, shard, at) for each of its parties, (number, text) for each text that was not given before.
    fn poll_terms<'py>(&self, py: Python<'py>, shard: u64, most: u64) -> PyResult<Rows<'py>> {
        let mut found = Vec::new();
        let texts = py
            .detach(|| {
                let (follower, reading) = &mut *self.0.lock();
                let mut outcome = Ok(());
                follower.poll_some(most, |index, entry| match reading.terms(entry) {
                    Ok(terms) => found.push((index, terms)),
                    Err(error) => outcome = Err(error),
                })?;
                outcome.map(|()| std::mem::take(&mut reading.texts))
            })
            .or_raise(py)?;
        let (records, parties) = (PyList::empty(py), PyList::empty(py));
        for (at, terms) in found {
            let place = (terms.time, shard, at, terms.what, terms.resource, terms.act, terms.id, terms.kind, terms.ended, terms.subject);
            records.append(place)?;
            for party in terms.parties {
                parties.append((party, terms.time, shard, at))?;
            }
        }
        Ok((records, parties, PyList::new(py, texts)?))
    }
}

/// The number that stands for a text or an id in the rows of an index.
#[pyfunction]
pub fn ledger_term(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(terms::number(bytes.as_bytes()));
    }
    Ok(terms::number(value.cast::<PyString>()?.to_str()?.as_bytes()))
}
