//! `creto-audit` for Python.

use crate::bridge::{Bridge, Convert, Sender};
use crate::consensus::HybridLogicalClock;
use crate::crypto::{Sealer, SigningKey, VerifyingKey};
use crate::error::{self, IntoPy};
use creto_audit::disk::Machine;
use creto_audit::note::{self, Checkpoint, Note};
use creto_audit::terms::{self, Reading};
use creto_audit::witness::{PublicKey, Witness};
use creto_audit::{Ended, Filter, Follower, Options, Proof, Shard, Subjects, encoding};
use creto_enablement_common::ports::Ticket;
use creto_enablement_common::{AuditRecord, Digest, Error, ErrorKind, Outcome, OutcomeRef, RecordKind, RecordRef, Result, Timestamp};
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at signals.
const SLICE: Duration = Duration::from_millis(100);
/// How long a checkpoint may take before whoever waits for it is told.
const PATIENCE: Duration = Duration::from_secs(30);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of a fixed number, given as such or in hexadecimal.
fn fixed<const N: usize>(name: &str, value: &Bound<'_, PyAny>) -> PyResult<[u8; N]> {
    let wrong = || error::to_py(value.py(), &Error::invalid(format!("`{name}` is not {N} bytes, nor {} hexadecimal digits", 2 * N)));
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return bytes.as_bytes().try_into().map_err(|_| wrong());
    }
    let text = value.cast::<PyString>().map_err(|_| wrong())?;
    let text = text.to_str()?;
    let mut out = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return Err(wrong());
    }
    for (place, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *place = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(out)
}

/// The pairs of a mapping.
fn pairs<'py, T: for<'a> FromPyObject<'a, 'py>>(value: Option<Bound<'py, PyAny>>) -> PyResult<Vec<(Bound<'py, PyString>, T)>>
where
    for<'a> PyErr: From<<T as FromPyObject<'a, 'py>>::Error>,
{
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(Vec::new()) };
    let map = value.cast_into::<PyDict>()?;
    let mut out = Vec::with_capacity(map.len());
    for (name, value) in map.iter() {
        out.push((name.cast_into::<PyString>()?, value.extract::<T>()?));
    }
    Ok(out)
}

fn kind_of(py: Python<'_>, name: &str) -> PyResult<RecordKind> {
    match name {
        "intent" => Ok(RecordKind::Intent),
        "outcome" => Ok(RecordKind::Outcome),
        "refusal" => Ok(RecordKind::Refusal),
        "event" => Ok(RecordKind::Event),
        other => Err(error::to_py(py, &Error::invalid(format!("a kind is intent, outcome, refusal or event, not `{other}`")))),
    }
}

/// The fields of a record that a dict holds, by one pass over it; a name that no record has is an error.
#[derive(Default)]
struct Given<'py> {
    who: Option<Bound<'py, PyAny>>,
    chain: Option<Bound<'py, PyAny>>,
    what: Option<Bound<'py, PyAny>>,
    resource: Option<Bound<'py, PyAny>>,
    why: Option<Bound<'py, PyAny>>,
    outcome: Option<Bound<'py, PyAny>>,
    timestamp: Option<Bound<'py, PyAny>>,
    id: Option<Bound<'py, PyAny>>,
    act: Option<Bound<'py, PyAny>>,
    kind: Option<Bound<'py, PyAny>>,
    digest: Option<Bound<'py, PyAny>>,
    policy: Option<Bound<'py, PyAny>>,
    usage: Option<Bound<'py, PyAny>>,
    detail: Option<Bound<'py, PyAny>>,
}

impl<'py> Given<'py> {
    fn new(record: &Bound<'py, PyDict>) -> PyResult<Self> {
        let mut given = Self::default();
        for (name, value) in record.iter() {
            let name = name.cast::<PyString>()?.to_str()?;
            let place = match name {
                "who" => &mut given.who,
                "delegation_chain" => &mut given.chain,
                "what" => &mut given.what,
                "resource" => &mut given.resource,
                "why" => &mut given.why,
                "outcome" => &mut given.outcome,
                "timestamp" => &mut given.timestamp,
                "id" => &mut given.id,
                "act" => &mut given.act,
                "kind" => &mut given.kind,
                "digest" => &mut given.digest,
                "policy" => &mut given.policy,
                "usage" => &mut given.usage,
                "detail" => &mut given.detail,
                // What reading adds to a record is no part of it.
                "signature" | "shard" | "index" | "covered" => continue,
                other => return Err(error::to_py(record.py(), &Error::invalid(format!("a record has no field `{other}`")))),
            };
            if !value.is_none() {
                *place = Some(value);
            }
        }
        Ok(given)
    }
}

fn text<'py>(py: Python<'py>, name: &str, value: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyString>> {
    match value {
        None => Ok(intern!(py, "").clone()),
        Some(value) => value.cast_into::<PyString>().map_err(|_| error::to_py(py, &Error::invalid(format!("`{name}` is no text")))),
    }
}

/// Reads a record from a dict, fills in what may be missing, and hands it on borrowed.
fn with_record<'py, T>(
    record: &Bound<'py, PyDict>,
    clock: &creto_consensus::HybridLogicalClock,
    use_it: impl FnOnce(&RecordRef<'_>) -> T,
) -> PyResult<T> {
    let py = record.py();
    let given = Given::new(record)?;
    let (who, what) = (text(py, "who", given.who)?, text(py, "what", given.what)?);
    let (resource, why) = (text(py, "resource", given.resource)?, text(py, "why", given.why)?);
    let chain: Vec<Bound<'_, PyString>> = match given.chain {
        Some(links) => links.try_iter()?.map(|link| Ok(link?.cast_into::<PyString>()?)).collect::<PyResult<_>>()?,
        None => Vec::new(),
    };
    let chain = chain.iter().map(|link| link.to_str()).collect::<PyResult<Vec<&str>>>()?;
    let outcome = given.outcome;
    let failure = match &outcome {
        Some(value) => match value.cast::<PyString>() {
            Ok(text) if text.to_str()? == "success" => None,
            Ok(text) => {
                let what = format!("an outcome is None, \"success\" or {{\"failure\": text}}, not `{}`", text.to_str()?);
                return Err(error::to_py(py, &Error::invalid(what)));
            }
            Err(_) => Some(value.get_item(intern!(py, "failure"))?.cast_into::<PyString>()?),
        },
        None => None,
    };
    let timestamp = match given.timestamp {
        Some(word) => Timestamp::from_word(word.extract()?),
        None => clock.now(),
    };
    let id: [u8; 16] = match given.id {
        Some(value) => fixed("id", &value)?,
        None => {
            // The clock never gives one word twice, and no other record takes this one's as its id with this ending.
            let mut id = [0xff; 16];
            let (head, _) = id.split_at_mut(8);
            head.copy_from_slice(&clock.now().word().to_be_bytes());
            id
        }
    };
    let act = given.act.map_or(Ok(id), |value| fixed("act", &value))?;
    let kind = match given.kind {
        None => RecordKind::Event,
        Some(value) => kind_of(py, value.cast::<PyString>()?.to_str()?)?,
    };
    let digest: Option<Digest> = given.digest.map(|value| fixed("digest", &value)).transpose()?;
    let policy: Option<Digest> = given.policy.map(|value| fixed("policy", &value)).transpose()?;
    let usage = pairs::<u64>(given.usage)?;
    let usage = usage.iter().map(|(meter, quantity)| Ok((meter.to_str()?, *quantity))).collect::<PyResult<Vec<_>>>()?;
    let detail = pairs::<Bound<'_, PyString>>(given.detail)?;
    let detail = detail.iter().map(|(name, value)| Ok((name.to_str()?, value.to_str()?))).collect::<PyResult<Vec<_>>>()?;
    let outcome = match (&outcome, &failure) {
        (None, _) => None,
        (_, None) => Some(OutcomeRef::Success),
        (_, Some(why)) => Some(OutcomeRef::Failure(why.to_str()?)),
    };
    Ok(use_it(&RecordRef {
        who: who.to_str()?,
        delegation_chain: &chain,
        what: what.to_str()?,
        resource: resource.to_str()?,
        why: why.to_str()?,
        outcome,
        timestamp,
        id,
        act,
        kind,
        digest: digest.as_ref(),
        policy: policy.as_ref(),
        usage: &usage,
        detail: &detail,
    }))
}

/// A record as a dict, with its place.
fn to_dict<'py>(py: Python<'py>, shard: &str, index: u64, record: &AuditRecord) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item(intern!(py, "who"), &record.who)?;
    dict.set_item(intern!(py, "delegation_chain"), &record.delegation_chain)?;
    dict.set_item(intern!(py, "what"), &record.what)?;
    dict.set_item(intern!(py, "resource"), &record.resource)?;
    dict.set_item(intern!(py, "why"), &record.why)?;
    match &record.outcome {
        None => dict.set_item(intern!(py, "outcome"), py.None())?,
        Some(Outcome::Success) => dict.set_item(intern!(py, "outcome"), intern!(py, "success"))?,
        Some(Outcome::Failure(why)) => {
            let failure = PyDict::new(py);
            failure.set_item(intern!(py, "failure"), why)?;
            dict.set_item(intern!(py, "outcome"), failure)?;
        }
    }
    dict.set_item(intern!(py, "timestamp"), record.timestamp.word())?;
    dict.set_item(intern!(py, "id"), hex(&record.id))?;
    dict.set_item(intern!(py, "act"), hex(&record.act))?;
    let kind = match record.kind {
        RecordKind::Intent => "intent",
        RecordKind::Outcome => "outcome",
        RecordKind::Refusal => "refusal",
        _ => "event",
    };
    dict.set_item(intern!(py, "kind"), kind)?;
    dict.set_item(intern!(py, "digest"), record.digest.map(|digest| hex(&digest)))?;
    dict.set_item(intern!(py, "policy"), record.policy.map(|digest| hex(&digest)))?;
    let usage = PyDict::new(py);
    for (meter, quantity) in &record.usage {
        usage.set_item(meter, quantity)?;
    }
    dict.set_item(intern!(py, "usage"), usage)?;
    let detail = PyDict::new(py);
    for (name, value) in &record.detail {
        detail.set_item(name, value)?;
    }
    dict.set_item(intern!(py, "detail"), detail)?;
    dict.set_item(intern!(py, "shard"), shard)?;
    dict.set_item(intern!(py, "index"), index)?;
    Ok(dict)
}

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
            Ok(None) => py.detach(|| creto_enablement_common::ports::AuditSink::enqueue(&*self.inner, record)),
            Err(error) => Err(error),
        })?
        .map(|ticket| ticket.0)
        .or_raise(py)
    }

    /// Appends a record; completes with its index once it is on disk, or None where a record with its id was there.
    fn append(&self, py: Python<'_>, record: &Bound<'_, PyDict>, bridge: &Bridge, token: u64) -> PyResult<()> {
        let sender = bridge.sender();
        let done = Box::new(move |result: Result<Option<u64>>| {
            sender.send(token, result.map(|index| Box::new(move |py: Python<'_>| Ok(index.into_pyobject(py)?.unbind())) as Convert));
        });
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
        let sender = bridge.sender();
        self.inner.when_durable(Ticket(ticket), Box::new(move |result| sender.done(token, result.map(|_| ())))).or_raise(py)
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

fn checkpoint_dict<'py>(py: Python<'py>, note: &Note, checkpoint: &Checkpoint) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("origin", &checkpoint.origin)?;
    dict.set_item("size", checkpoint.size)?;
    dict.set_item("root", hex(&checkpoint.root))?;
    dict.set_item("note", note.to_text())?;
    Ok(dict)
}

/// One shard of a ledger, for reading, from any process.
#[pyclass(frozen, module = "creto._core")]
pub struct LedgerShard(Shard);

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
        LedgerFollower(Mutex::new((follower, Reading::default())))
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
        Ok(py.detach(|| self.0.at(new).consistency(old)).or_raise(py)?.iter().map(|hash| hex(hash)).collect())
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
        let counter = progress.map_or_else(Arc::default, |progress| Arc::clone(&progress.0));
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

/// A place in one shard; what has come since is read once.
#[pyclass(frozen, module = "creto._core")]
pub struct LedgerFollower(Mutex<(Follower, Reading)>);

/// Rows of an index: records, parties, texts, as tuples.
type Rows<'py> = (Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyList>);

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

    /// Erases a subject's key; False where it was erased before, or never known.
    fn erase(&self, py: Python<'_>, subject: &str) -> PyResult<bool> {
        py.detach(|| self.inner.erase(subject)).or_raise(py)
    }
}

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

/// Counts records as they are verified; may be read from another thread.
#[pyclass(frozen, module = "creto._core")]
#[derive(Default)]
pub struct Progress(Arc<AtomicU64>);

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

/// The names of the shards of a ledger folder, in order.
#[pyfunction]
pub fn ledger_shards(py: Python<'_>, folder: PathBuf) -> PyResult<Vec<String>> {
    py.detach(|| creto_audit::shards(&folder)).or_raise(py)
}

/// Checks a proof (C2SP tlog-proof text) of a record's bytes; returns the checkpoint as a dict.
#[pyfunction]
pub fn ledger_verify_proof<'py>(py: Python<'py>, proof: &str, entry: &[u8], key: &VerifyingKey) -> PyResult<Bound<'py, PyDict>> {
    let proof = Proof::parse(proof).or_raise(py)?;
    let checkpoint = proof.verify(entry, &key.0).or_raise(py)?;
    checkpoint_dict(py, &proof.note, &checkpoint)
}

/// The record that bytes of an entry are, as a dict.
#[pyfunction]
#[pyo3(signature = (entry, shard = "", index = 0))]
pub fn ledger_decode<'py>(py: Python<'py>, entry: &[u8], shard: &str, index: u64) -> PyResult<Bound<'py, PyDict>> {
    to_dict(py, shard, index, &encoding::decode(entry).or_raise(py)?)
}

/// The verifier keys, one for each algorithm, under which public clients check the checkpoints of `origin`.
#[pyfunction]
pub fn ledger_verifier_keys(origin: &str, key: &VerifyingKey) -> Vec<String> {
    let keys = key.0.suite().signers().iter();
    keys.map(|algorithm| note::verifier_key(origin, *algorithm, key.0.public(*algorithm).unwrap_or_default())).collect()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Ledger>()?;
    module.add_class::<LedgerShard>()?;
    module.add_class::<LedgerFollower>()?;
    module.add_class::<LedgerWitness>()?;
    module.add_class::<LedgerSubjects>()?;
    module.add_function(wrap_pyfunction!(ledger_with_cosignature, module)?)?;
    module.add_function(wrap_pyfunction!(ledger_cosigned, module)?)?;
    module.add_class::<Progress>()?;
    module.add_function(wrap_pyfunction!(ledger_shards, module)?)?;
    module.add_function(wrap_pyfunction!(ledger_verify_proof, module)?)?;
    module.add_function(wrap_pyfunction!(ledger_decode, module)?)?;
    module.add_function(wrap_pyfunction!(ledger_term, module)?)?;
    module.add_function(wrap_pyfunction!(ledger_verifier_keys, module)?)
}
