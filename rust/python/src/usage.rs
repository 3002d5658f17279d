//! Usage in memory, commitments, windows and the price of an act, for Python.

use crate::audit::Progress;
use crate::error::IntoPy;
use crate::quota::Quantities;
use creto_enablement_common::Error;
use creto_enablement_common::sync::RwLock;
use creto_metering::Span;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Usage events in columns, each taken once by its source, id and meter.
#[pyclass(frozen, module = "creto._core")]
pub struct UsageTable {
    table: RwLock<creto_metering::UsageTable>,
}

type Pairs<'py> = Vec<(Bound<'py, PyString>, Bound<'py, PyString>)>;

fn pair_texts<'a>(pairs: &'a Pairs<'_>) -> PyResult<Vec<(&'a str, &'a str)>> {
    pairs.iter().map(|(name, value)| Ok((name.to_str()?, value.to_str()?))).collect()
}

#[pymethods]
impl UsageTable {
    #[new]
    fn new() -> Self {
        Self { table: RwLock::default() }
    }

    /// Takes an event; False where it was taken before.
    #[expect(clippy::too_many_arguments, reason = "an event's fields, flat for speed")]
    fn add(
        &self,
        py: Python<'_>,
        source: &str,
        id: &str,
        meter: &str,
        quantity: i128,
        at: u64,
        dimensions: &Bound<'_, PyDict>,
    ) -> PyResult<bool> {
        let pairs: Pairs<'_> =
            dimensions.iter().map(|(name, value)| Ok((name.cast_into()?, value.cast_into()?))).collect::<PyResult<_>>()?;
        let event = creto_metering::Event { source, id, meter, quantity, at, dimensions: &pair_texts(&pairs)? };
        self.table.write().add(&event).or_raise(py)
    }

    /// True where an event of this source and id was taken.
    fn has(&self, source: &str, id: &str) -> bool {
        self.table.read().has(source, id)
    }

    fn __len__(&self) -> usize {
        self.table.read().len()
    }

    /// How many events were offered again.
    #[getter]
    fn duplicates(&self) -> u64 {
        self.table.read().duplicates()
    }

    /// The meters that events name, sorted.
    fn meters(&self) -> Vec<String> {
        self.table.read().meters().into_iter().map(ToOwned::to_owned).collect()
    }

    /// Takes all usage of a shard from `start` until before `end` (microseconds), each event once; also what no checkpoint covers yet.
    /// `progress` is counted up with the records that were read.
    #[pyo3(signature = (ledger, shard, start, end, progress = None))]
    fn read<'py>(
        &self,
        py: Python<'py>,
        ledger: std::path::PathBuf,
        shard: &str,
        start: u64,
        end: u64,
        progress: Option<PyRef<'py, Progress>>,
    ) -> PyResult<()> {
        let counter = progress.map_or_else(Arc::default, |progress| progress.shared());
        py.detach(|| {
            let mut table = self.table.write();
            creto_gate::usage::each_usage(&ledger, shard, 0, None, |reading| {
                counter.store(reading.record + 1, Ordering::Relaxed);
                table.add_batch(&reading.events, start, end)
            })
        })
        .map(|read| counter.store(read, Ordering::Relaxed))
        .or_raise(py)
    }

    /// The numbers, in the order in which they came, of the events from `start` until before `end` (microseconds) with these dimensions.
    #[pyo3(signature = (meter, start, end, only = None))]
    fn select(&self, meter: &str, start: u64, end: u64, only: Option<&Bound<'_, PyDict>>) -> PyResult<Vec<usize>> {
        let only = dimension_pairs(only)?;
        let only = pair_texts(&only)?;
        let query = creto_metering::Query {
            meter,
            aggregate: creto_metering::Aggregate::Sum,
            of: None,
            from: start,
            to: end,
            span: None,
            by: &[],
            only: &only,
        };
        Ok(self.table.read().select(&query))
    }

    /// (start, end, group, numerator, denominator, events) of every bucket that has events.
    #[pyo3(signature = (meter, aggregation, start, end, *, of = None, window = None, time_zone = "UTC", by = Vec::new(), only = None))]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one query")]
    #[expect(clippy::type_complexity, reason = "a tuple is what Python unpacks fastest")]
    fn aggregate<'py>(
        &self,
        py: Python<'py>,
        meter: &str,
        aggregation: &str,
        start: u64,
        end: u64,
        of: Option<&str>,
        window: Option<&str>,
        time_zone: &str,
        by: Vec<String>,
        only: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Vec<(u64, u64, Vec<String>, i128, u64, u64)>> {
        let only = dimension_pairs(only)?;
        let only = pair_texts(&only)?;
        let by: Vec<&str> = by.iter().map(AsRef::as_ref).collect();
        let span = window
            .map(|text| Span::calendar(text, time_zone).or_else(|error| Span::length(text).map(Span::Fixed).map_err(|_| error)))
            .transpose()
            .or_raise(py)?;
        let aggregate = creto_metering::Aggregate::parse(aggregation).or_raise(py)?;
        let query = creto_metering::Query { meter, aggregate, of, from: start, to: end, span: span.as_ref(), by: &by, only: &only };
        let buckets = py.detach(|| self.table.read().aggregate(&query)).or_raise(py)?;
        Ok(buckets.into_iter().map(|b| (b.start, b.end, b.group, b.total.numerator, b.total.denominator, b.events)).collect())
    }
}

fn dimension_pairs<'py>(only: Option<&Bound<'py, PyDict>>) -> PyResult<Pairs<'py>> {
    only.map_or_else(|| Ok(Vec::new()), |only| only.iter().map(|(name, value)| Ok((name.cast_into()?, value.cast_into()?))).collect())
}

/// The root of a Merkle tree over leaves (RFC 9162, SHA-256).
#[pyfunction]
pub fn merkle_root<'py>(py: Python<'py>, leaves: Vec<Bound<'py, PyBytes>>) -> Bound<'py, PyBytes> {
    let hashes: Vec<[u8; 32]> = leaves.iter().map(|leaf| creto_metering::usage::leaf_hash(leaf.as_bytes())).collect();
    PyBytes::new(py, &creto_metering::usage::root(&hashes))
}

/// The hashes that lead from one of the leaves to the root.
#[pyfunction]
pub fn merkle_path<'py>(py: Python<'py>, leaves: Vec<Bound<'py, PyBytes>>, index: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let hashes: Vec<[u8; 32]> = leaves.iter().map(|leaf| creto_metering::usage::leaf_hash(leaf.as_bytes())).collect();
    let path = creto_metering::usage::inclusion(&hashes, index)
        .ok_or_else(|| Error::invalid(format!("leaf {index}: there are {}", hashes.len())))
        .or_raise(py)?;
    Ok(path.iter().map(|hash| PyBytes::new(py, hash)).collect())
}

/// The hash of a leaf (RFC 9162, SHA-256).
#[pyfunction]
pub fn merkle_leaf<'py>(py: Python<'py>, leaf: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &creto_metering::usage::leaf_hash(leaf))
}

/// The root that a leaf's hash and its path lead to; None where the path does not fit the place.
#[pyfunction]
pub fn merkle_hash_root<'py>(py: Python<'py>, leaf: [u8; 32], index: u64, size: u64, path: Vec<[u8; 32]>) -> Option<Bound<'py, PyBytes>> {
    Some(PyBytes::new(py, &creto_metering::usage::inclusion_root(leaf, index, size, &path)?))
}

/// The window of a span (`90s`, `day`, `month`, ...) that holds a time: (start, end) in microseconds since the epoch.
#[pyfunction]
#[pyo3(signature = (window, at, time_zone = "UTC"))]
pub fn usage_window(py: Python<'_>, window: &str, at: u64, time_zone: &str) -> PyResult<(u64, u64)> {
    let span = Span::calendar(window, time_zone).or_else(|error| Span::length(window).map(Span::Fixed).map_err(|_| error)).or_raise(py)?;
    Ok(span.window(at))
}

/// A meter, its price, other prices from a context length on, and whether its units are context.
type MeterPrice = (String, String, Vec<(u64, String)>, bool);

/// The prices of one kind of act: (meter, price, [(context beyond, price)], whether its units are context), each price a decimal text.
#[pyclass(frozen, module = "creto._core")]
pub struct ActPrice {
    price: creto_metering::ActPrice,
}

#[pymethods]
impl ActPrice {
    #[new]
    fn new(py: Python<'_>, meters: Vec<MeterPrice>) -> PyResult<Self> {
        let mut price = creto_metering::ActPrice::default();
        for (meter, base, above, context) in &meters {
            let above: Vec<(u64, &str)> = above.iter().map(|(from, price)| (*from, price.as_str())).collect();
            price.add(meter, base, &above, *context).or_raise(py)?;
        }
        Ok(Self { price })
    }

    /// What the usage costs, in billionths of the currency's unit, rounded up.
    fn cost<'py>(&self, py: Python<'py>, usage: &Bound<'py, PyDict>) -> PyResult<u64> {
        self.price.cost(&Quantities::read(py, usage)?.refs()?).or_raise(py)
    }
}
