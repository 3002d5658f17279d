//! Usage between ledger and invoices, for Python: the way in, segments, and what they add up to.

use crate::audit::{Ledger, Progress};
use crate::consensus::HybridLogicalClock;
use crate::error::{self, IntoPy};
use creto_enablement_common::{Error, Result};
use creto_gate::usage::{Index, Ingest, Stretch, act_usage, each_usage};
use creto_metering::usage::{Aggregate, Batch, Part, Series, Step, Totals, Which};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Source, customer, meter and dimensions, as Python gives them.
type Given<'py> = (String, String, String, Bound<'py, PyDict>);
/// Shard, first record, record after the last.
type Bounds = (String, u64, u64);

fn dimensions(dict: &Bound<'_, PyDict>) -> PyResult<Vec<(String, String)>> {
    dict.iter().map(|(name, value)| Ok((name.extract()?, value.extract()?))).collect()
}

fn series(py: Python<'_>, (source, customer, meter, own): &Given<'_>) -> PyResult<Series> {
    let own = dimensions(own)?;
    let own: Vec<(&str, &str)> = own.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Series::new(source, customer, meter, &own).or_raise(py)
}

/// A column of whole numbers: an array of the narrow type, or any list.
fn column<'py, N: pyo3::buffer::Element + Into<W> + Copy, W>(py: Python<'py>, name: &str, given: &Bound<'py, PyAny>) -> PyResult<Vec<W>>
where
    Vec<W>: for<'a> FromPyObject<'a, 'py>,
{
    if let Ok(buffer) = PyBuffer::<N>::get(given) {
        return Ok(buffer.to_vec(py)?.into_iter().map(Into::into).collect());
    }
    given
        .extract::<Vec<W>>()
        .map_err(|_| error::to_py(py, &Error::invalid(format!("the column `{name}` holds something else than whole numbers"))))
}

/// The way in for usage events of others: each once by its source and id. A source belongs to one process at a time.
#[pyclass(frozen, module = "creto._core")]
pub struct UsageIngest {
    ingest: std::sync::Mutex<Option<Arc<Ingest>>>,
    clock: Arc<creto_consensus::HybridLogicalClock>,
}

impl UsageIngest {
    fn open(&self, py: Python<'_>) -> PyResult<Arc<Ingest>> {
        let ingest = self.ingest.lock().ok().and_then(|held| held.clone());
        ingest.ok_or_else(|| error::to_py(py, &Error::invalid("the way in for usage is closed")))
    }
}

fn batch<'py>(
    py: Python<'py>,
    series: &[Given<'py>],
    which: &Bound<'py, PyAny>,
    at: &Bound<'py, PyAny>,
    quantity: &Bound<'py, PyAny>,
    ids: &Bound<'py, PyList>,
) -> PyResult<Batch> {
    let mut batch = Batch {
        series: series.iter().map(|given| self::series(py, given)).collect::<PyResult<_>>()?,
        which: column::<u32, u32>(py, "which", which)?,
        at: column::<u64, u64>(py, "at", at)?,
        quantity: column::<i64, i128>(py, "quantity", quantity)?,
        ..Batch::default()
    };
    batch.ends.reserve(ids.len());
    for id in ids.iter() {
        let id = id.cast_into::<PyString>().map_err(|_| error::to_py(py, &Error::invalid("an id is a text")))?;
        batch.ids.push_str(id.to_str()?);
        batch.ends.push(u32::try_from(batch.ids.len()).unwrap_or(u32::MAX));
    }
    Ok(batch)
}

#[pymethods]
impl UsageIngest {
    /// Learns from the ledger in `folder` what was taken; events of a time before `since` (microseconds) are refused.
    #[new]
    #[pyo3(signature = (ledger, folder, clock, since = 0))]
    fn new(py: Python<'_>, ledger: &Ledger, folder: PathBuf, clock: &HybridLogicalClock, since: u64) -> PyResult<Self> {
        let ledger = ledger.shared();
        let ingest = py.detach(|| Ingest::open(ledger, &folder, since)).or_raise(py)?;
        Ok(Self { ingest: std::sync::Mutex::new(Some(Arc::new(ingest))), clock: clock.shared() })
    }

    /// Takes events in columns: the series that they are of (source, customer, meter, dimensions), the number of each one's series, times
    /// in microseconds, quantities, ids. Returns how many were taken, how many were there before, and the ledger's ticket to wait for.
    fn take<'py>(
        &self,
        py: Python<'py>,
        series: Vec<Given<'py>>,
        which: &Bound<'py, PyAny>,
        at: &Bound<'py, PyAny>,
        quantity: &Bound<'py, PyAny>,
        ids: &Bound<'py, PyList>,
    ) -> PyResult<(usize, usize, u64)> {
        let batch = batch(py, &series, which, at, quantity, ids)?;
        let ingest = self.open(py)?;
        let now = self.clock.now();
        let taken = py.detach(|| ingest.take(&batch, now)).or_raise(py)?;
        Ok((taken.taken, taken.duplicates, taken.ticket.0))
    }

    /// Says whether events in columns, as for `take`, could be taken; takes none.
    fn check<'py>(
        &self,
        py: Python<'py>,
        series: Vec<Given<'py>>,
        which: &Bound<'py, PyAny>,
        at: &Bound<'py, PyAny>,
        quantity: &Bound<'py, PyAny>,
        ids: &Bound<'py, PyList>,
    ) -> PyResult<()> {
        self.open(py)?.check(&batch(py, &series, which, at, quantity, ids)?).or_raise(py)
    }

    /// Gives its sources free for other processes.
    fn close(&self) {
        if let Ok(mut held) = self.ingest.lock() {
            *held = None;
        }
    }
}

/// The segments of a ledger's usage.
#[pyclass(frozen, module = "creto._core")]
pub struct UsageIndex {
    index: Index,
}

fn counter(progress: Option<PyRef<'_, Progress>>) -> Arc<AtomicU64> {
    progress.map_or_else(Arc::default, |progress| progress.shared())
}

fn stretches(bounds: Vec<Bounds>) -> Vec<Stretch> {
    bounds.into_iter().map(|(shard, from, to)| Stretch { shard, from, to }).collect()
}

#[pymethods]
impl UsageIndex {
    /// Of the ledger in a folder; its segments lie in another. Without one nothing is kept, and all is read from the ledger itself.
    #[new]
    #[pyo3(signature = (ledger, folder = None))]
    fn new(ledger: PathBuf, folder: Option<PathBuf>) -> Self {
        Self { index: Index::new(&ledger, folder.as_deref()) }
    }

    /// Makes segments of what checkpoints cover and no segment holds; returns how many events were put in order. `progress` counts records.
    #[pyo3(signature = (progress = None))]
    fn advance(&self, py: Python<'_>, progress: Option<PyRef<'_, Progress>>) -> PyResult<u64> {
        let done = counter(progress);
        py.detach(|| self.index.advance(&done)).or_raise(py)
    }

    /// (shard, first record, record after the last) of every segment.
    fn stretches(&self, py: Python<'_>) -> PyResult<Vec<Bounds>> {
        let all = py.detach(|| self.index.stretches()).or_raise(py)?;
        Ok(all.into_iter().map(|stretch| (stretch.shard, stretch.from, stretch.to)).collect())
    }

    /// Adds up what stretches hold, between the times `cuts` (microseconds, rising): n + 1 of them bound n intervals.
    ///
    /// `after`: by shard, from which record on events count; `keep`: meters whose aggregation needs each event; `trace`: the source and
    /// id of an event to be proved; `recount`: add every row up again, and hold what segments say against it; `progress` counts records.
    #[pyo3(signature = (stretches, cuts, *, customers = None, keep = Vec::new(), after = None, trace = None, recount = false, progress = None))]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one query")]
    fn totals(
        &self,
        py: Python<'_>,
        stretches: Vec<Bounds>,
        cuts: Vec<u64>,
        customers: Option<Vec<String>>,
        keep: Vec<String>,
        after: Option<BTreeMap<String, u64>>,
        trace: Option<(String, String)>,
        recount: bool,
        progress: Option<PyRef<'_, Progress>>,
    ) -> PyResult<UsageTotals> {
        let which = Which {
            cuts,
            customers: customers.map(|all| all.into_iter().collect()),
            keep: keep.into_iter().collect(),
            trace,
            recount,
            ..Which::default()
        };
        let (stretches, done) = (self::stretches(stretches), counter(progress));
        let totals = py.detach(|| self.index.totals(&stretches, which, &after.unwrap_or_default(), &done)).or_raise(py)?;
        Ok(UsageTotals { totals })
    }
}

/// What every series of events adds up to, in every interval, with commitments.
#[pyclass(frozen, module = "creto._core")]
pub struct UsageTotals {
    totals: Totals,
}

fn parts(given: &[(u32, u32)]) -> Vec<Part> {
    given.iter().map(|(series, interval)| Part { series: *series, interval: *interval }).collect()
}

#[pymethods]
impl UsageTotals {
    /// Adds up events in memory: (source, id, customer, meter, quantity, at, dimensions, shard, record, position) each, in the order of their place.
    #[staticmethod]
    #[pyo3(signature = (events, cuts, *, keep = Vec::new()))]
    fn of<'py>(py: Python<'py>, events: Vec<Bound<'py, PyAny>>, cuts: Vec<u64>, keep: Vec<String>) -> PyResult<Self> {
        type Flat<'py> = (String, String, String, String, i128, u64, Bound<'py, PyDict>, String, u64, u32);
        let mut all = BTreeMap::<(String, u64, u32), Batch>::new();
        for event in events {
            let (source, id, customer, meter, quantity, at, own, shard, record, position): Flat<'py> = event.extract()?;
            let own = dimensions(&own)?.into_iter().collect();
            let mut batch = Batch { series: vec![Series::recorded(&source, &customer, &meter, own)], ..Batch::default() };
            batch.push(0, at, quantity, &id).or_raise(py)?;
            all.insert((shard, record, position), batch);
        }
        let which = Which { cuts, keep: keep.into_iter().collect(), ..Which::default() };
        Ok(Self { totals: py.detach(|| creto_gate::usage::totals_of(&all, which)).or_raise(py)? })
    }

    /// Source, customer, meter and dimensions of every series that was met, by number.
    fn series<'py>(&self, py: Python<'py>) -> PyResult<Vec<Given<'py>>> {
        self.totals
            .series()
            .iter()
            .map(|series| {
                let own = PyDict::new(py);
                for (name, value) in &series.dimensions {
                    own.set_item(name, value)?;
                }
                Ok((series.source.clone(), series.customer.clone(), series.meter.clone(), own))
            })
            .collect()
    }

    /// The number of the series and of the interval, wherever there are events.
    fn parts(&self) -> Vec<(u32, u32)> {
        self.totals.parts().map(|part| (part.series, part.interval)).collect()
    }

    /// How many events stood in a second place and were not counted.
    #[getter]
    fn duplicates(&self) -> u64 {
        self.totals.duplicates()
    }

    /// Numerator, denominator, number of events and commitment of a line of these parts, whose time ends at `end` (microseconds).
    fn line(&self, py: Python<'_>, parts: Vec<(u32, u32)>, aggregation: &str, end: u64) -> PyResult<(i128, u64, u64, String)> {
        let line =
            Aggregate::parse(aggregation).and_then(|aggregate| self.totals.line(&self::parts(&parts), aggregate, end)).or_raise(py)?;
        Ok((line.total.numerator, line.total.denominator, line.events, base16ct::lower::encode_string(&line.commitment)))
    }

    /// The traced event's leaf, and its way (index, size, path) through three trees to a line's commitment; None where it is in no part.
    #[expect(clippy::type_complexity, reason = "a tuple is what Python unpacks fastest")]
    fn proof<'py>(&self, py: Python<'py>, parts: Vec<(u32, u32)>) -> Option<(Bound<'py, PyBytes>, Vec<(u64, u64, Vec<String>)>)> {
        let (leaf, steps) = self.totals.proof(&self::parts(&parts))?;
        let step = |step: &Step| (step.index, step.size, step.path.iter().map(|hash| base16ct::lower::encode_string(hash)).collect());
        Some((PyBytes::new(py, &leaf), steps.iter().map(step).collect()))
    }
}

/// An event as Python gets it: source, id, customer, meter, quantity, time, dimensions, shard, record, position.
type Got<'py> = (String, String, String, String, i128, u64, Bound<'py, PyDict>, String, u64, u32);

/// The usage events that the records of a shard hold, from `start` until before `end`, or until what is on disk ends.
#[pyfunction]
#[pyo3(signature = (ledger, shard, start = 0, end = None))]
pub fn usage_events<'py>(py: Python<'py>, ledger: PathBuf, shard: String, start: u64, end: Option<u64>) -> PyResult<Vec<Got<'py>>> {
    let mut all: Vec<(u64, Batch)> = Vec::new();
    let read: Result<u64> = py.detach(|| {
        each_usage(&ledger, &shard, start, end, |reading| {
            all.push((reading.record, reading.events));
            Ok(())
        })
    });
    read.or_raise(py)?;
    let mut got = Vec::new();
    for (record, batch) in &all {
        for (position, row) in batch.rows().enumerate() {
            let Some(series) = batch.series.get(row.series as usize) else { continue };
            let own = PyDict::new(py);
            for (name, value) in &series.dimensions {
                own.set_item(name, value)?;
            }
            got.push((
                series.source.clone(),
                row.id.to_owned(),
                series.customer.clone(),
                series.meter.clone(),
                row.quantity,
                row.at,
                own,
                shard.clone(),
                *record,
                position as u32,
            ));
        }
    }
    Ok(got)
}

/// The leaves of what the act used whose outcome an entry of the ledger is.
#[pyfunction]
pub fn usage_leaves<'py>(py: Python<'py>, entry: &[u8]) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let Some(events) = act_usage(entry).or_raise(py)? else { return Ok(Vec::new()) };
    let leaves: Vec<_> = events.series.iter().map(Series::leaves).collect();
    let rows = events.rows().filter_map(|row| {
        let mut leaf = Vec::new();
        leaves.get(row.series as usize)?.write(row.at, row.id, row.quantity, &mut leaf);
        Some(PyBytes::new(py, &leaf))
    });
    Ok(rows.collect())
}

/// The bytes that commitments are made of: RFC 8785 JSON of an event.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "an event's fields")]
pub fn usage_leaf<'py>(
    py: Python<'py>,
    source: &str,
    id: &str,
    customer: &str,
    meter: &str,
    quantity: i128,
    at: u64,
    own: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyBytes>> {
    let series = Series::recorded(source, customer, meter, dimensions(own)?.into_iter().collect());
    let mut leaf = Vec::new();
    series.leaves().write(at, id, quantity, &mut leaf);
    Ok(PyBytes::new(py, &leaf))
}
