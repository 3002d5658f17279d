//! Witnesses: what they answer, and what their cosignatures say.

use crate::crypto::SigningKey;
use crate::error::IntoPy;
use creto_audit::disk::Machine;
use creto_audit::note::Note;
use creto_audit::witness::{PublicKey, Witness};
use creto_enablement_common::Result;
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;

/// A witness: remembers the latest checkpoint of each log that it knows, and cosigns only what extends it.
#[pyclass(frozen, module = "creto._core")]
pub struct LedgerWitness(Witness);

#[pymethods]
impl LedgerWitness {
    /// A witness that remembers in `folder`, signs as `name`, and knows the logs of these verifier keys.
    #[new]
    fn new(py: Python<'_>, folder: PathBuf, name: &str, key: &SigningKey, logs: Vec<String>) -> PyResult<Self> {
        let logs = logs.iter().map(|log| PublicKey::parse(log)).collect::<Result<Vec<_>>>().or_raise(py)?;
        Ok(Self(Witness::new(Arc::new(Machine), &folder, name, key.0.clone(), logs)))
    }

    /// The verifier key under which its cosignatures are checked.
    #[getter]
    fn verifier_key(&self) -> String {
        self.0.verifier_key()
    }

    /// Answers a request of C2SP tlog-witness: HTTP status, media type, body. `now` is in seconds since the Unix epoch.
    fn add_checkpoint(&self, py: Python<'_>, body: &[u8], now: u64) -> PyResult<(u16, &'static str, String)> {
        let answer = py.detach(|| self.0.add_checkpoint(body, now)).or_raise(py)?;
        Ok((answer.status, answer.media, answer.body))
    }
}

/// The note with a witness's cosignature from its answer; raises where that does not hold under the witness's verifier key.
#[pyfunction]
pub fn ledger_with_cosignature(py: Python<'_>, note: &str, answer: &str, witness: &str) -> PyResult<String> {
    let joined =
        Note::parse(note.as_bytes()).and_then(|note| creto_audit::witness::with_cosignature(&note, answer, &PublicKey::parse(witness)?));
    Ok(joined.or_raise(py)?.to_text())
}

/// When a witness cosigned a note, in seconds since the Unix epoch; None where it has not.
#[pyfunction]
pub fn ledger_cosigned(py: Python<'_>, note: &str, witness: &str) -> PyResult<Option<u64>> {
    Note::parse(note.as_bytes()).and_then(|note| Ok(PublicKey::parse(witness)?.cosigned(&note))).or_raise(py)
}
