//! The writing side: one shard, held by this process.

use super::record::with_record;
use super::shard::LedgerShard;
use crate::bridge::{Bridge, Convert, Sender};
use crate::consensus::HybridLogicalClock;
use crate::crypto::SigningKey;
use crate::error::{self, IntoPy};
use creto_audit::{Done, Options};
use creto_enablement_common::ports::{AuditSink, Ticket};
use creto_enablement_common::{Error, ErrorKind, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at signals.
const SLICE: Duration = Duration::from_millis(100);
/// How long a checkpoint may take before whoever waits for it is told.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits in slices, so that Ctrl-C is answered; `wait` gets how long it may take and returns what it was waiting for once it is there.
fn in_slices<T: Send>(
    py: Python<'_>,
    timeout: Option<f64>,
    what: &str,
    wait: impl Fn(Duration) -> Result<Option<T>> + Sync,
) -> PyResult<T> {
    let until = timeout.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 1e9)));
    loop {
        let slice = until.map_or(SLICE, |until| until.saturating_duration_since(Instant::now()).min(SLICE));
        if let Some(value) = py.detach(|| wait(slice)).or_raise(py)? {
            return Ok(value);
        }
        py.check_signals()?;
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(error::to_py(py, &Error::new(ErrorKind::Timeout).with_context(what.to_owned())));
        }
    }
}

/// Runs on a thread of its own what may take long, and completes `token` with it.
fn on_thread(sender: Sender, token: u64, work: impl FnOnce() -> Result<Convert> + Send + 'static) -> Result<()> {
    let spawned = std::thread::Builder::new().name("creto-audit".into()).spawn(move || sender.send(token, work()));
    spawned.map(|_| ()).map_err(|e| Error::from(e).with_context("starting a thread"))
}

fn number(value: u64) -> Convert {
    Box::new(move |py| Ok(value.into_pyobject(py)?.into_any().unbind()))
}

/// The ledger of a state folder, for writing: one shard, held by this process until it is closed.
#[pyclass(frozen, module = "creto._core")]
pub struct Ledger {
    inner: Arc<creto_audit::Ledger>,
    clock: Arc<creto_consensus::HybridLogicalClock>,
}

impl Ledger {
    /// The ledger itself, for the parts that write to it.
    pub fn shared(&self) -> Arc<creto_audit::Ledger> {
        Arc::clone(&self.inner)
    }
}

#[pymethods]
impl Ledger {
    /// Takes over a free shard of the ledger in `folder`, or makes one, and recovers what its last holder left.
    #[new]
    #[pyo3(signature = (folder, clock, signer, *, origin = "creto.local/ledger", checkpoint_seconds = 1.0, checkpoint_records = 10_000))]
    fn new(
        py: Python<'_>,
        folder: PathBuf,
        clock: &HybridLogicalClock,
        signer: &SigningKey,
        origin: &str,
        checkpoint_seconds: f64,
        checkpoint_records: u64,
    ) -> PyResult<Self> {
        let (clock, signer) = (clock.shared(), signer.0.clone());
        let options = Options {
            origin: origin.to_owned(),
            every: Duration::from_secs_f64(checkpoint_seconds.clamp(0.01, 86_400.0)),
            every_records: checkpoint_records,
            ..Options::default()
        };
        let inner = py.detach(|| creto_audit::Ledger::open(&folder, &*clock, signer, options)).or_raise(py)?;
        Ok(Self { inner, clock })
    }

    /// The name of the shard.
    #[getter]
    fn shard(&self) -> &str {
        self.inner.shard()
    }

    /// What its checkpoints are signed under.
    #[getter]
    fn origin(&self) -> &str {
        self.inner.origin()
    }

    /// How many records were found in segments at opening: 0 where the last holder closed the shard.
    #[getter]
    fn replayed(&self) -> u64 {
        self.inner.replayed()
    }

    /// Records covered by the checkpoint on disk.
    #[getter]
    fn published(&self) -> u64 {
        self.inner.published()
    }

    /// Puts a record in the queue, which never drops, and returns its ticket; waits only where the queue is full.
    fn enqueue(&self, py: Python<'_>, record: &Bound<'_, PyDict>) -> PyResult<u64> {
        with_record(record, &self.clock, |record| match self.inner.try_enqueue(record) {
            Ok(Some(ticket)) => Ok(ticket),
            Ok(None) => py.detach(|| self.inner.enqueue(record)),
            Err(error) => Err(error),
        })?
        .map(|ticket| ticket.0)
        .or_raise(py)
    }

    /// Appends a record; completes with its index once it is on disk, or None where a record with its id was there.
    fn append(&self, py: Python<'_>, record: &Bound<'_, PyDict>, bridge: &Bridge, token: u64) -> PyResult<()> {
        let done = Done { to: bridge.completions(), token };
        with_record(record, &self.clock, |record| self.inner.enqueue_then(record, done))?.map(|_| ()).or_raise(py)
    }

    /// Appends a record and returns its ticket once it is on disk.
    #[pyo3(signature = (record, timeout = None))]
    fn append_blocking(&self, py: Python<'_>, record: &Bound<'_, PyDict>, timeout: Option<f64>) -> PyResult<u64> {
        let ticket = self.enqueue(py, record)?;
        self.durable_blocking(py, ticket, timeout)?;
        Ok(ticket)
    }

    /// Appends records under their fixed ids, skips those that this shard has, and returns once all are on disk.
    fn append_records(&self, py: Python<'_>, records: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut last = None;
        for record in records.try_iter()? {
            let record = record?.cast_into::<PyDict>()?;
            last = Some(with_record(&record, &self.clock, |record| self.inner.enqueue_once(record))?.or_raise(py)?);
        }
        last.map_or(Ok(()), |ticket| self.durable_blocking(py, ticket.0, None))
    }

    /// Completes once the record with this ticket, and all before it, are on disk.
    fn durable(&self, py: Python<'_>, ticket: u64, bridge: &Bridge, token: u64) -> PyResult<()> {
        self.inner.when_durable(Ticket(ticket), Done { to: bridge.completions(), token }).or_raise(py)
    }

    /// Completes once all records that were taken so far are on disk.
    fn flushed(&self, py: Python<'_>, bridge: &Bridge, token: u64) -> PyResult<()> {
        self.durable(py, self.inner.last().0, bridge, token)
    }

    /// Returns once the record with this ticket, and all before it, are on disk.
    #[pyo3(signature = (ticket, timeout = None))]
    fn durable_blocking(&self, py: Python<'_>, ticket: u64, timeout: Option<f64>) -> PyResult<()> {
        in_slices(py, timeout, "waiting for a record to be on disk", |slice| {
            Ok(self.inner.wait_durable_for(Ticket(ticket), slice)?.then_some(()))
        })
    }

    /// Publishes a checkpoint over all that was taken so far; completes with how many records it covers.
    fn publish(&self, py: Python<'_>, bridge: &Bridge, token: u64) -> PyResult<()> {
        let inner = self.shared();
        on_thread(bridge.sender(), token, move || inner.publish(PATIENCE).map(number)).or_raise(py)
    }

    /// Publishes a checkpoint over all that was taken so far, and returns how many records it covers.
    #[pyo3(signature = (timeout = None))]
    fn publish_blocking(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<u64> {
        in_slices(py, timeout, "publishing a checkpoint", |slice| match self.inner.publish(slice) {
            Ok(size) => Ok(Some(size)),
            Err(error) if *error.kind() == ErrorKind::Timeout => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// Writes and publishes all that was taken and gives the shard free; completes when that is done.
    fn close(&self, py: Python<'_>, bridge: &Bridge, token: u64) -> PyResult<()> {
        let inner = self.shared();
        on_thread(bridge.sender(), token, move || inner.close().map(|()| Box::new(|py: Python<'_>| Ok(py.None())) as Convert)).or_raise(py)
    }

    /// Writes and publishes all that was taken and gives the shard free.
    fn close_blocking(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.close()).or_raise(py)
    }

    /// The shard for reading.
    fn reader(&self) -> LedgerShard {
        LedgerShard(self.inner.reader())
    }

    fn __repr__(&self) -> String {
        format!("<Ledger shard `{}` of {}>", self.inner.shard(), self.inner.origin())
    }
}
