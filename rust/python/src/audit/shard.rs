//! The reading side: one shard, from any process.

use super::follow::LedgerFollower;
use super::hexadecimal::fixed;
use super::record::{kind_of, to_dict};
use crate::crypto::VerifyingKey;
use crate::error::{self, IntoPy};
use creto_audit::disk::Machine;
use creto_audit::note::{Checkpoint, Note};
use creto_audit::{Ended, Filter, Follower, Proof, Shard, encoding};
use creto_enablement_common::{Error, ErrorKind, Result, Timestamp};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A checkpoint as a dict.
pub fn checkpoint_dict<'py>(py: Python<'py>, note: &Note, checkpoint: &Checkpoint) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("origin", &checkpoint.origin)?;
    dict.set_item("size", checkpoint.size)?;
    dict.set_item("root", base16ct::lower::encode_string(&checkpoint.root))?;
    dict.set_item("note", note.to_text())?;
    Ok(dict)
}

/// One shard of a ledger, for reading, from any process.
#[pyclass(frozen, module = "creto._core")]
pub struct LedgerShard(pub Shard);

#[pymethods]
impl LedgerShard {
    /// The shard in a folder; nothing is read yet.
    #[new]
    fn new(path: PathBuf) -> Self {
        Self(Shard::open(Arc::new(Machine), &path))
    }

    /// The name of the shard.
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// The latest checkpoint as `{origin, size, root, note}`, signatures unchecked; None before the first.
    fn checkpoint<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let found = py.detach(|| self.0.checkpoint()).or_raise(py)?;
        found.map(|(note, checkpoint)| checkpoint_dict(py, &note, &checkpoint)).transpose()
    }

    /// The records from `start` to before `end`, as dicts; `size` is that of a checkpoint which covers them.
    fn records<'py>(&self, py: Python<'py>, start: u64, end: u64, size: u64) -> PyResult<Bound<'py, PyList>> {
        let mut records = Vec::new();
        py.detach(|| {
            self.0.at(size).each_entry(start, end, |index, entry| {
                records.push((index, encoding::decode(entry)?));
                Ok(())
            })
        })
        .or_raise(py)?;
        let list = PyList::empty(py);
        for (index, record) in &records {
            list.append(to_dict(py, self.0.name(), *index, record)?)?;
        }
        Ok(list)
    }

    /// The records from `start` on that are on disk but may not be covered by a checkpoint yet, as dicts.
    fn tail<'py>(&self, py: Python<'py>, start: u64) -> PyResult<Bound<'py, PyList>> {
        let mut records = Vec::new();
        py.detach(|| self.0.tail(start, |index, entry| records.push((index, encoding::decode(entry))))).or_raise(py)?;
        let list = PyList::empty(py);
        for (index, record) in records {
            list.append(to_dict(py, self.0.name(), index, &record.or_raise(py)?)?)?;
        }
        Ok(list)
    }

    /// The records that match, the latest `limit` of them, in order, as dicts with `covered`: whether the latest checkpoint covers them.
    #[pyo3(signature = (*, agent = None, action = None, resource = None, act = None, id = None, kind = None, outcome = None, since = None, until = None, limit = 1000))]
    #[allow(clippy::too_many_arguments, reason = "keyword-only, one for each column")]
    fn query<'py>(
        &self,
        py: Python<'py>,
        agent: Option<String>,
        action: Option<String>,
        resource: Option<String>,
        act: Option<Bound<'py, PyAny>>,
        id: Option<Bound<'py, PyAny>>,
        kind: Option<&str>,
        outcome: Option<&str>,
        since: Option<u64>,
        until: Option<u64>,
        limit: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let filter = Filter {
            agent,
            action,
            resource,
            act: act.map(|act| fixed("act", &act)).transpose()?,
            id: id.map(|id| fixed("id", &id)).transpose()?,
            kind: kind.map(|kind| kind_of(py, kind)).transpose()?,
            outcome: match outcome {
                None => None,
                Some("success") => Some(Ended::Success),
                Some("failure") => Some(Ended::Failure),
                Some("refused") => Some(Ended::Refused),
                Some(other) => {
                    let what = format!("an outcome is looked for as success, failure or refused, not `{other}`");
                    return Err(error::to_py(py, &Error::invalid(what)));
                }
            },
            from: since.map(Timestamp::from_word),
            until: until.map(Timestamp::from_word),
        };
        let list = PyList::empty(py);
        for found in py.detach(|| creto_audit::query(&self.0, &filter, limit)).or_raise(py)? {
            let dict = to_dict(py, self.0.name(), found.index, &found.record)?;
            dict.set_item(intern!(py, "covered"), found.covered)?;
            list.append(dict)?;
        }
        Ok(list)
    }

    /// Those of these records that are there, in order, as dicts with `covered`: whether the latest checkpoint covers them.
    fn pick<'py>(&self, py: Python<'py>, indexes: BTreeSet<u64>) -> PyResult<Bound<'py, PyList>> {
        let mut records = Vec::with_capacity(indexes.len());
        py.detach(|| {
            self.0.pick(&indexes, |index, covered, entry| {
                records.push((index, covered, encoding::decode(entry)?));
                Ok(())
            })
        })
        .or_raise(py)?;
        let list = PyList::empty(py);
        for (index, covered, record) in &records {
            let dict = to_dict(py, self.0.name(), *index, record)?;
            dict.set_item(intern!(py, "covered"), covered)?;
            list.append(dict)?;
        }
        Ok(list)
    }

    /// Follows the shard from record `next` on.
    fn follow(&self, next: u64) -> LedgerFollower {
        let follower = Follower::new(self.0.clone(), Arc::new(Machine), next);
        LedgerFollower::new(follower)
    }

    /// The bytes of one record: what its leaf is the hash of.
    fn entry<'py>(&self, py: Python<'py>, index: u64, size: u64) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &py.detach(|| self.0.at(size).entry(index)).or_raise(py)?))
    }

    /// The proof, as C2SP tlog-proof text, that a record is in the log.
    fn prove(&self, py: Python<'_>, index: u64) -> PyResult<String> {
        py.detach(|| Proof::make(&self.0, index)).map(|proof| proof.to_text()).or_raise(py)
    }

    /// The consistency proof between two sizes, as hexadecimal hashes (RFC 6962, 2.1.2).
    fn consistency(&self, py: Python<'_>, old: u64, new: u64) -> PyResult<Vec<String>> {
        Ok(py.detach(|| self.0.at(new).consistency(old)).or_raise(py)?.iter().map(|hash| base16ct::lower::encode_string(hash)).collect())
    }

    /// What a witness is asked with: the request's body, and the checkpoint in it, which extends one over `old` records.
    fn witness_request(&self, py: Python<'_>, old: u64) -> PyResult<(String, String)> {
        let made = py.detach(|| {
            let none = || Error::new(ErrorKind::NotFound).with_context(format!("a checkpoint in shard `{}`", self.0.name()));
            let (note, checkpoint) = self.0.checkpoint()?.ok_or_else(none)?;
            let proof = self.0.at(checkpoint.size).consistency(old)?;
            Result::<(String, String)>::Ok((creto_audit::witness::request_body(old, &proof, &note), note.to_text()))
        });
        made.or_raise(py)
    }

    /// Checks every record, tile and signature; returns the checkpoint as a dict. `seen` are notes known from elsewhere; `progress` is counted up.
    #[pyo3(signature = (keys, seen = Vec::new(), progress = None))]
    fn verify<'py>(
        &self,
        py: Python<'py>,
        keys: Vec<PyRef<'py, VerifyingKey>>,
        seen: Vec<String>,
        progress: Option<PyRef<'py, Progress>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let keys: Vec<_> = keys.iter().map(|key| key.0.clone()).collect();
        let seen = seen.iter().map(|note| Checkpoint::parse(note)).collect::<Result<Vec<_>>>().or_raise(py)?;
        let counter = progress.map_or_else(Arc::default, |progress| progress.shared());
        let (shard, done) = (self.0.clone(), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::Builder::new().name("creto-verify".into()).spawn({
            let (counter, done) = (Arc::clone(&counter), Arc::clone(&done));
            move || {
                let result = creto_audit::verify(&shard, &keys, &seen, &counter);
                done.store(true, Ordering::Release);
                result
            }
        })?;
        // Ctrl-C is answered; the thread ends by itself, since it only reads.
        while !done.load(Ordering::Acquire) {
            py.detach(|| std::thread::sleep(Duration::from_millis(2)));
            py.check_signals()?;
        }
        let result = py.detach(|| thread.join()).unwrap_or_else(|_| Err(Error::internal("verification ended in a panic")));
        let verified = result.or_raise(py)?;
        checkpoint_dict(py, &verified.note, &verified.checkpoint)
    }
}

/// Counts records as they are verified; may be read from another thread.
#[pyclass(frozen, module = "creto._core")]
#[derive(Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// The counter itself, for what counts it up.
    pub fn shared(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl Progress {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// How many so far.
    #[getter]
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
