//! Personal data in records, under keys that can be erased.

use super::hexadecimal::fixed;
use crate::crypto::Sealer;
use crate::error::IntoPy;
use creto_audit::Subjects;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::path::PathBuf;
use std::time::SystemTime;

/// The keys under which records hold personal data, one for each subject, each erasable.
#[pyclass(frozen, module = "creto._core")]
pub struct LedgerSubjects {
    inner: Subjects,
    sealer: Py<Sealer>,
}

#[pymethods]
impl LedgerSubjects {
    /// The subject keys of a folder, made where it is missing.
    #[new]
    fn new(py: Python<'_>, folder: PathBuf, sealer: Py<Sealer>) -> PyResult<Self> {
        let key = &sealer.get().0;
        let inner = py.detach(|| Subjects::open(&folder, key)).or_raise(py)?;
        Ok(Self { inner, sealer })
    }

    /// The name that stands in records for a subject.
    fn pseudonym(&self, py: Python<'_>, subject: &str) -> PyResult<String> {
        self.inner.pseudonym(subject).or_raise(py)
    }

    /// Encrypts what the record of this id says about a subject: its pseudonym, and the text for the record.
    fn seal(&self, py: Python<'_>, subject: &str, record: &Bound<'_, PyAny>, plain: &[u8]) -> PyResult<(String, String)> {
        let (record, key) = (fixed("record", record)?, &self.sealer.get().0);
        py.detach(|| self.inner.seal(key, subject, &record, plain)).or_raise(py)
    }

    /// Reads what `seal` wrote; raises NotFoundError where the subject was erased.
    fn open<'py>(&self, py: Python<'py>, subject: &str, record: &Bound<'_, PyAny>, text: &str) -> PyResult<Bound<'py, PyBytes>> {
        let (record, key) = (fixed("record", record)?, &self.sealer.get().0);
        let plain = py.detach(|| self.inner.open_text(key, subject, &record, text)).or_raise(py)?;
        Ok(PyBytes::new(py, &plain))
    }

    /// The subjects whose keys are there: pairs of the pseudonym and when its key was made, in seconds since the Unix epoch.
    fn kept(&self, py: Python<'_>) -> PyResult<Vec<(String, f64)>> {
        let kept = py.detach(|| self.inner.kept()).or_raise(py)?;
        let seconds = |made: SystemTime| made.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Ok(kept.into_iter().map(|(pseudonym, made)| (pseudonym, seconds(made))).collect())
    }

    /// Erases the key of a subject that only its pseudonym is known of; False where it was erased before, or never known.
    fn erase_pseudonym(&self, py: Python<'_>, pseudonym: &str) -> PyResult<bool> {
        py.detach(|| self.inner.erase_pseudonym(pseudonym)).or_raise(py)
    }

    /// Erases a subject's key; False where it was erased before, or never known.
    fn erase(&self, py: Python<'_>, subject: &str) -> PyResult<bool> {
        py.detach(|| self.inner.erase(subject)).or_raise(py)
    }
}
