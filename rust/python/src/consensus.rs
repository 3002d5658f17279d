//! `creto-consensus` for Python.

use crate::error::IntoPy;
use creto_consensus::HybridLogicalClock as Inner;
use creto_enablement_common::{Result, ResultExt, Timestamp};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;

/// The clock of one state folder: every word it gives is later than all given or observed before, in any process.
#[pyclass(frozen, module = "creto._core")]
pub struct HybridLogicalClock(Arc<Inner>);

impl HybridLogicalClock {
    /// The clock itself, for the parts that read it.
    pub fn shared(&self) -> Arc<Inner> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl HybridLogicalClock {
    /// Opens the clock file at `path`, made if it is missing.
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let opened: Result<Inner> = py.detach(|| Inner::open(&path).context(|| format!("opening the clock `{}`", path.display())));
        Ok(Self(Arc::new(opened.or_raise(py)?)))
    }

    /// A word later than every one given or observed before: microseconds since the Unix epoch, times 4096, plus a counter.
    fn now(&self) -> u64 {
        self.0.now().word()
    }

    /// Takes over a later word from elsewhere; False where it is more than a minute ahead and was refused.
    fn observe(&self, word: u64) -> bool {
        self.0.observe(Timestamp::from_word(word)).is_ok()
    }

    /// Makes `consensus_timestamp()` of this process read this clock; False where another is installed already.
    fn install(&self) -> bool {
        creto_consensus::install(&self.0)
    }

    /// `(count, last in seconds, refused)`: steps of the wall clock beyond a minute, and words refused for being too far ahead.
    fn jumps(&self) -> (u64, f64, u64) {
        let jumps = self.0.jumps();
        (jumps.count, jumps.last_micros as f64 / 1e6, jumps.refused)
    }

    /// Seconds by which the clock is ahead of the wall clock at this moment.
    fn ahead(&self) -> f64 {
        self.0.ahead().as_secs_f64()
    }
}

/// A word later than every one that this process was given before; the folder's own once its clock is installed.
///
/// Its upper 52 bits are microseconds since the Unix epoch, the lower 12 count within one (hybrid logical clock, Kulkarni et al., 2014).
///
/// Example:
///     >>> import creto
///     >>> creto.consensus_timestamp() < creto.consensus_timestamp()
///     True
#[pyfunction]
pub fn consensus_timestamp() -> u64 {
    creto_consensus::consensus_timestamp().word()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<HybridLogicalClock>()?;
    module.add_function(wrap_pyfunction!(consensus_timestamp, module)?)
}
