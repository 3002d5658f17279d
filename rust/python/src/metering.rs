//! `creto-metering` for Python.

use crate::error::IntoPy;
use creto_enablement_common::ports::{QuotaEnforcer as _, ReservationId};
use creto_enablement_common::{Error, Result, Timestamp};
use creto_metering::{
    Amounts, Batch, Boost, Counter, LeaseGrant, LeaseNeed, Level, Prepared, QuotaEnforcer as Enforcer, QuotaRule, Refusal, ReplayRecord,
    Scope,
};
use parking_lot::RwLock;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyString, PyTuple};
use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{ClockId, clock_gettime};
use smallvec::SmallVec;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

type Names<'py> = SmallVec<[Bound<'py, PyString>; 8]>;

fn time(now: Option<u64>) -> Timestamp {
    now.map_or_else(creto_consensus::consensus_timestamp, Timestamp::from_word)
}

/// The kernel's coarse clock: milliseconds late at most, and read in a third of the time.
fn coarse_time() -> Timestamp {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    let micros = i64::from(time.tv_sec) * 1_000_000 + i64::from(time.tv_nsec) / 1_000;
    Timestamp::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn not_a_name(value: &Bound<'_, PyAny>) -> Error {
    Error::invalid(format!("a quota path holds names, not {}", value.get_type().name().map_or_else(|_| "this".into(), |n| n.to_string())))
}

fn names<'py>(py: Python<'py>, path: &Bound<'py, PyAny>) -> PyResult<Names<'py>> {
    let name = |item: Bound<'py, PyAny>| item.cast_into::<PyString>().map_err(|e| crate::error::to_py(py, &not_a_name(&e.into_inner())));
    if let Ok(tuple) = path.cast::<PyTuple>() {
        return tuple.iter().map(name).collect();
    }
    if let Ok(list) = path.cast::<PyList>() {
        return list.iter().map(name).collect();
    }
    Err(crate::error::to_py(py, &Error::invalid("a quota path is a list or a tuple of names, organisation first")))
}

fn texts<'a>(names: &'a Names<'_>) -> PyResult<SmallVec<[&'a str; 8]>> {
    names.iter().map(|name| name.to_str()).collect()
}

fn amount(py: Python<'_>, meter: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let bad = || crate::error::to_py(py, &Error::invalid(format!("usage of `{meter}`: {value}: write a whole number from 0 to 2^63-1")));
    let units = value.extract::<i64>().map_err(|_| bad())?;
    u64::try_from(units).map_err(|_| bad())
}

pub(crate) struct Quantities<'py>(SmallVec<[(Bound<'py, PyString>, u64); 4]>);

impl<'py> Quantities<'py> {
    pub(crate) fn read(py: Python<'py>, usage: &Bound<'py, PyDict>) -> PyResult<Self> {
        let mut list = SmallVec::with_capacity(usage.len());
        for (meter, value) in usage {
            let meter = meter
                .cast_into::<PyString>()
                .map_err(|e| crate::error::to_py(py, &Error::invalid(format!("a meter is a name, not {}", e.into_inner()))))?;
            let units = amount(py, meter.to_str()?, &value)?;
            list.push((meter, units));
        }
        Ok(Self(list))
    }

    pub(crate) fn refs(&self) -> PyResult<SmallVec<[(&str, u64); 4]>> {
        self.0.iter().map(|(meter, units)| Ok((meter.to_str()?, *units))).collect()
    }
}

/// What a record of the ledger says was used: path, usage, timestamp word, act id.
type Used<'py> = (Bound<'py, PyAny>, Bound<'py, PyDict>, u64, Bound<'py, PyBytes>);

/// Counts before the act, along the whole path, on all quotas or on none.
#[pyclass(frozen, subclass, module = "creto._core")]
pub struct QuotaEnforcer {
    inner: Arc<Enforcer>,
}

impl QuotaEnforcer {
    /// The enforcer itself, for the gate.
    pub fn shared(&self) -> Arc<Enforcer> {
        Arc::clone(&self.inner)
    }
}

#[pymethods]
impl QuotaEnforcer {
    #[new]
    #[pyo3(signature = (rules, *, hold_seconds = 900.0))]
    fn new(py: Python<'_>, rules: &str, hold_seconds: f64) -> PyResult<Self> {
        let hold = Duration::try_from_secs_f64(hold_seconds)
            .map_err(|_| Error::invalid(format!("hold_seconds {hold_seconds}: write a positive number of seconds")))
            .or_raise(py)?;
        Ok(Self { inner: Arc::new(Enforcer::new(QuotaRule::parse_list(rules).or_raise(py)?, hold)) })
    }

    /// Raises QuotaExceededError where `usage` would not fit; takes nothing.
    #[pyo3(signature = (path, usage, *, now = None))]
    fn check_quota_nowait<'py>(
        &self,
        py: Python<'py>,
        path: &Bound<'py, PyAny>,
        usage: &Bound<'py, PyDict>,
        now: Option<u64>,
    ) -> PyResult<()> {
        let (path, usage) = (names(py, path)?, Quantities::read(py, usage)?);
        self.inner.check_quota(&texts(&path)?, &usage.refs()?, time(now)).or_raise(py)
    }

    /// Takes `usage` for good, or raises QuotaExceededError.
    #[pyo3(signature = (path, usage, *, now = None))]
    fn consume_nowait<'py>(&self, py: Python<'py>, path: &Bound<'py, PyAny>, usage: &Bound<'py, PyDict>, now: Option<u64>) -> PyResult<()> {
        let (path, usage) = (names(py, path)?, Quantities::read(py, usage)?);
        self.inner.consume(&texts(&path)?, &usage.refs()?, time(now)).or_raise(py)
    }

    /// Holds `usage` until it is committed, released or overdue, or raises QuotaExceededError.
    #[pyo3(signature = (path, usage, *, now = None))]
    fn reserve_nowait<'py>(
        &self,
        py: Python<'py>,
        path: &Bound<'py, PyAny>,
        usage: &Bound<'py, PyDict>,
        now: Option<u64>,
    ) -> PyResult<Reservation> {
        let (path, usage) = (names(py, path)?, Quantities::read(py, usage)?);
        let id = self.inner.reserve(&texts(&path)?, &usage.refs()?, time(now)).or_raise(py)?;
        Ok(Reservation { enforcer: self.shared(), id, open: AtomicBool::new(true) })
    }

    /// Why `usage` would not fit, as a dict; None where it would.
    #[pyo3(signature = (path, usage, *, now = None))]
    fn explain<'py>(
        &self,
        py: Python<'py>,
        path: &Bound<'py, PyAny>,
        usage: &Bound<'py, PyDict>,
        now: Option<u64>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let (path, usage) = (names(py, path)?, Quantities::read(py, usage)?);
        let refusal = self.inner.explain(&texts(&path)?, &usage.refs()?, time(now)).or_raise(py)?;
        refusal.map(|refusal| refusal_dict(py, &refusal)).transpose()
    }

    /// Looks a path and its meters up once.
    fn prepare<'py>(&self, py: Python<'py>, path: &Bound<'py, PyAny>, meters: &Bound<'py, PyAny>) -> PyResult<PreparedQuota> {
        let (path, meters) = (names(py, path)?, names(py, meters)?);
        let (path, meters) = (texts(&path)?, texts(&meters)?);
        let prepared = self.inner.prepare(&path, &meters).or_raise(py)?;
        Ok(PreparedQuota {
            enforcer: self.shared(),
            coarse: prepared.coarse(),
            prepared,
            path: path.into_iter().map(Into::into).collect(),
            meters: meters.into_iter().map(Into::into).collect(),
            hold: self.inner.hold(),
        })
    }

    /// An empty batch over this enforcer.
    fn batch(&self) -> QuotaBatch {
        QuotaBatch { enforcer: self.shared(), batch: RwLock::default() }
    }

    /// Installs another list of rules (JSON); counts go on where scope, meter and window are the same.
    #[pyo3(signature = (rules, *, now = None))]
    fn install(&self, py: Python<'_>, rules: &str, now: Option<u64>) -> PyResult<()> {
        self.inner.install(QuotaRule::parse_list(rules).or_raise(py)?, time(now));
        Ok(())
    }

    /// Allows one scope `units` more until `until` (microseconds since the epoch); how many counters were raised.
    #[pyo3(signature = (scope, meter, units, until, *, now = None))]
    fn boost(&self, py: Python<'_>, scope: &str, meter: &str, units: u64, until: u64, now: Option<u64>) -> PyResult<usize> {
        let boost = Boost { scope: Scope::parse(scope).or_raise(py)?, meter: meter.to_owned(), units, until };
        self.inner.boost(boost, time(now)).or_raise(py)
    }

    /// Every counter, as dicts.
    #[pyo3(signature = (*, now = None))]
    fn counters<'py>(&self, py: Python<'py>, now: Option<u64>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.inner.counters(time(now)).iter().map(|counter| counter_dict(py, counter)).collect()
    }

    /// The notices given since the last call, as dicts.
    fn notices<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let dict = |notice: &creto_metering::Notice| {
            let dict = PyDict::new(py);
            dict.set_item("level", notice.level.name())?;
            dict.set_item("name", &notice.name)?;
            dict.set_item("meter", &notice.meter)?;
            dict.set_item("window", &notice.window)?;
            dict.set_item("limit", notice.limit)?;
            dict.set_item("used", notice.used)?;
            dict.set_item("percent", notice.percent)?;
            dict.set_item("at", notice.at)?;
            Ok(dict)
        };
        self.inner.notices().iter().map(dict).collect()
    }

    /// How many reservations are open.
    fn open_reservations(&self) -> usize {
        self.inner.open_reservations()
    }

    /// Gives back what overdue reservations hold.
    #[pyo3(signature = (*, now = None))]
    fn expire(&self, now: Option<u64>) {
        self.inner.expire(time(now));
    }

    /// Counts what records of the ledger say was used: (path, usage, timestamp word, act id of 16 bytes), each act once; how many.
    fn replay<'py>(&self, py: Python<'py>, records: Vec<Used<'py>>) -> PyResult<usize> {
        let read: Vec<_> = records
            .iter()
            .map(|(path, usage, word, act)| {
                let act: [u8; 16] = act.as_bytes().try_into().map_err(|_| Error::invalid("an act id has 16 bytes")).or_raise(py)?;
                PyResult::Ok((names(py, path)?, Quantities::read(py, usage)?, *word, act))
            })
            .collect::<PyResult<_>>()?;
        let views: Vec<_> = read
            .iter()
            .map(|(path, usage, word, act)| PyResult::Ok((texts(path)?, usage.refs()?, *word, *act)))
            .collect::<PyResult<_>>()?;
        let records =
            views.iter().map(|(path, usage, word, act)| ReplayRecord { path, usage, at: Timestamp::from_word(*word).micros(), act: *act });
        self.inner.replay(records).or_raise(py)
    }

    /// A descriptor that becomes readable when units are wanted; the caller owns it.
    fn wake_fd(&self, py: Python<'_>) -> PyResult<i32> {
        let made = || -> std::io::Result<OwnedFd> {
            let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let ours = wake.try_clone()?;
            // A full counter means that a wake-up is already due.
            let set = self.inner.wake_by(move || {
                let _ = rustix::io::write(&ours, &1_u64.to_ne_bytes());
            });
            if set { Ok(wake) } else { Err(std::io::Error::other("the wake-up of this enforcer was taken before")) }
        };
        made().map(IntoRawFd::into_raw_fd).or_raise(py)
    }

    /// What has to be leased since the last call, as dicts.
    #[pyo3(signature = (*, now = None))]
    fn lease_needs<'py>(&self, py: Python<'py>, now: Option<u64>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.inner.lease_needs(time(now)).iter().map(|need| need_dict(py, need)).collect()
    }

    /// Every lease held, as dicts.
    #[pyo3(signature = (*, now = None))]
    fn leases_held<'py>(&self, py: Python<'py>, now: Option<u64>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.inner.leases(time(now)).iter().map(|need| need_dict(py, need)).collect()
    }

    /// Takes over granted units (a dict of `lease_needs`, how many this process has now, usable until in microseconds, what all hold
    /// together); False where what is new goes back.
    #[pyo3(signature = (need, held, until, total = None, *, now = None))]
    fn grant(
        &self,
        py: Python<'_>,
        need: &Bound<'_, PyDict>,
        held: u64,
        until: u64,
        total: Option<u64>,
        now: Option<u64>,
    ) -> PyResult<bool> {
        let need = need_of(py, need)?;
        let grant = LeaseGrant {
            organisation: &need.organisation,
            level: need.level,
            name: &need.name,
            meter: &need.meter,
            window: &need.window,
            end: need.end,
            held,
            until,
            total,
        };
        self.inner.grant(&grant, time(now)).or_raise(py)
    }

    /// Gives up what is leased and not used (a dict of `leases_held`); how many units go back.
    #[pyo3(signature = (lease, *, now = None))]
    fn surrender(&self, py: Python<'_>, lease: &Bound<'_, PyDict>, now: Option<u64>) -> PyResult<u64> {
        self.inner.surrender(&need_of(py, lease)?, time(now)).or_raise(py)
    }

    /// To be called in a forked child: leases stay with the parent.
    fn forked(&self) {
        self.inner.forked();
    }
}

/// What is held for one act: commit it, release it, or use it as a context manager (commits; releases on an exception).
#[pyclass(frozen, module = "creto._core")]
pub struct Reservation {
    enforcer: Arc<Enforcer>,
    id: ReservationId,
    open: AtomicBool,
}

impl Reservation {
    fn settle(&self, usage: Option<&Quantities<'_>>, now: Timestamp) -> PyResult<Result<()>> {
        if !self.open.swap(false, Ordering::AcqRel) {
            return Ok(Ok(()));
        }
        Ok(match usage {
            None => self.enforcer.commit_held(self.id, now),
            Some(usage) => self.enforcer.commit(self.id, &usage.refs()?, now),
        })
    }
}

#[pymethods]
impl Reservation {
    /// Its number.
    #[getter]
    fn id(&self) -> u64 {
        self.id.0
    }

    /// True until it is committed or released.
    #[getter]
    fn open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Turns what is held into what was used; without `usage`, all of it. A second call changes nothing.
    #[pyo3(signature = (usage = None, *, now = None))]
    fn commit<'py>(&self, py: Python<'py>, usage: Option<&Bound<'py, PyDict>>, now: Option<u64>) -> PyResult<()> {
        let usage = usage.map(|usage| Quantities::read(py, usage)).transpose()?;
        self.settle(usage.as_ref(), time(now))?.or_raise(py)
    }

    /// Gives back all that is held.
    #[pyo3(signature = (*, now = None))]
    fn release(&self, py: Python<'_>, now: Option<u64>) -> PyResult<()> {
        if self.open.swap(false, Ordering::AcqRel) {
            self.enforcer.release(self.id, time(now)).or_raise(py)?;
        }
        Ok(())
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __exit__(&self, py: Python<'_>, kind: &Bound<'_, PyAny>, _value: &Bound<'_, PyAny>, _trace: &Bound<'_, PyAny>) -> PyResult<bool> {
        if kind.is_none() {
            self.settle(None, time(None))?.or_raise(py)?;
        } else {
            self.release(py, None)?;
        }
        Ok(false)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Forgotten, not settled: what it holds must not be lost until it is overdue.
        if self.open.swap(false, Ordering::AcqRel) {
            let _ = self.enforcer.release(self.id, time(None));
        }
    }
}

/// A path and its meters, looked up once.
#[pyclass(frozen, module = "creto._core")]
pub struct PreparedQuota {
    enforcer: Arc<Enforcer>,
    prepared: Prepared,
    path: Vec<Box<str>>,
    meters: Vec<Box<str>>,
    coarse: bool,
    hold: Duration,
}

#[pymethods]
impl PreparedQuota {
    /// Takes `units` of the first meter for good; False where a quota has no room.
    #[pyo3(signature = (units = 1, /))]
    fn take(&self, units: u64) -> bool {
        self.prepared.take(units, if self.coarse { coarse_time() } else { time(None) })
    }

    /// Holds one amount for each meter, or raises QuotaExceededError.
    #[pyo3(signature = (*units))]
    fn reserve<'py>(&self, py: Python<'py>, units: &Bound<'py, PyTuple>) -> PyResult<Reservation> {
        let mut list: SmallVec<[u64; 4]> = SmallVec::new();
        for (place, value) in units.iter().enumerate() {
            list.push(amount(py, self.meters.get(place).map_or("", AsRef::as_ref), &value)?);
        }
        if list.is_empty() && self.meters.len() == 1 {
            list.push(1);
        }
        let id = self.prepared.reserve(&list, time(None), self.hold).or_raise(py)?;
        Ok(Reservation { enforcer: Arc::clone(&self.enforcer), id, open: AtomicBool::new(true) })
    }

    /// Why `units` of the first meter would not fit, as a dict; None where they would.
    #[pyo3(signature = (units = 1, /))]
    fn explain<'py>(&self, py: Python<'py>, units: u64) -> PyResult<Option<Bound<'py, PyDict>>> {
        let path: Vec<&str> = self.path.iter().map(AsRef::as_ref).collect();
        let meter = self.meters.first().map(AsRef::as_ref).unwrap_or_default();
        let refusal = self.enforcer.explain(&path, &[(meter, units)], time(None)).or_raise(py)?;
        refusal.map(|refusal| refusal_dict(py, &refusal)).transpose()
    }
}

/// Chains of one meter, looked up once, for arrays of checks.
#[pyclass(frozen, module = "creto._core")]
pub struct QuotaBatch {
    enforcer: Arc<Enforcer>,
    batch: RwLock<Batch>,
}

#[pymethods]
impl QuotaBatch {
    /// Adds a chain; its number.
    fn add<'py>(&self, py: Python<'py>, path: &Bound<'py, PyAny>, meter: &str) -> PyResult<u32> {
        let path = names(py, path)?;
        self.batch.write().add(&self.enforcer, &texts(&path)?, meter).or_raise(py)
    }

    fn __len__(&self) -> usize {
        self.batch.read().len()
    }

    /// Takes units (a number, or one uint64 for each) for the chains of a uint32 array, in turn; one byte of 0 or 1 for each.
    fn take<'py>(&self, py: Python<'py>, which: PyBuffer<u32>, units: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyByteArray>> {
        let contiguous = || Error::invalid("the array must be contiguous");
        let which: Vec<u32> = which.to_vec(py).map_err(|_| contiguous()).or_raise(py)?;
        let list: Option<Vec<u64>> = match units.extract::<u64>() {
            Ok(_) => None,
            Err(_) => Some(PyBuffer::<u64>::get(units)?.to_vec(py)?),
        };
        let amounts = match &list {
            Some(list) => Amounts::List(list),
            None => Amounts::Each(units.extract()?),
        };
        let mut fitted = vec![0_u8; which.len()];
        let now = time(None);
        py.detach(|| self.batch.read().take(&which, amounts, now, &mut fitted)).or_raise(py)?;
        Ok(PyByteArray::new(py, &fitted))
    }
}

fn refusal_dict<'py>(py: Python<'py>, refusal: &Refusal) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("level", refusal.level.name())?;
    dict.set_item("name", &refusal.name)?;
    dict.set_item("meter", &refusal.meter)?;
    dict.set_item("window", &refusal.window)?;
    dict.set_item("limit", refusal.limit)?;
    dict.set_item("used", refusal.used)?;
    dict.set_item("asked", refusal.asked)?;
    dict.set_item("resets_at", refusal.resets_at)?;
    dict.set_item("retry_after", refusal.wait.map(|wait| wait as f64 / 1e6))?;
    dict.set_item("lease_short", refusal.lease_short)?;
    Ok(dict)
}

fn counter_dict<'py>(py: Python<'py>, counter: &Counter) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("organisation", &counter.organisation)?;
    dict.set_item("level", counter.level.name())?;
    dict.set_item("name", &counter.name)?;
    dict.set_item("meter", &counter.meter)?;
    dict.set_item("window", &counter.window)?;
    dict.set_item("limit", counter.limit)?;
    dict.set_item("used", counter.used)?;
    dict.set_item("resets_at", counter.resets_at)?;
    dict.set_item("boost", counter.boost)?;
    Ok(dict)
}

fn need_dict<'py>(py: Python<'py>, need: &LeaseNeed) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("organisation", &need.organisation)?;
    dict.set_item("level", need.level.name())?;
    dict.set_item("name", &need.name)?;
    dict.set_item("meter", &need.meter)?;
    dict.set_item("window", &need.window)?;
    dict.set_item("end", need.end)?;
    dict.set_item("limit", need.limit)?;
    dict.set_item("want", need.want)?;
    dict.set_item("leased", need.leased)?;
    dict.set_item("used", need.used)?;
    Ok(dict)
}

fn need_of(py: Python<'_>, dict: &Bound<'_, PyDict>) -> PyResult<LeaseNeed> {
    let missing = |key: &str| crate::error::to_py(py, &Error::invalid(format!("a lease has `{key}`")));
    let text = |key: &str| -> PyResult<String> { dict.get_item(key)?.ok_or_else(|| missing(key))?.extract() };
    let number = |key: &str| -> PyResult<u64> { dict.get_item(key)?.ok_or_else(|| missing(key))?.extract() };
    let level = match text("level")?.as_str() {
        "organisation" => Level::Organisation,
        "team" => Level::Team,
        _ => Level::Agent,
    };
    Ok(LeaseNeed {
        organisation: text("organisation")?,
        level,
        name: text("name")?,
        meter: text("meter")?,
        window: text("window")?,
        end: number("end")?,
        limit: number("limit")?,
        want: number("want")?,
        leased: number("leased")?,
        used: number("used")?,
    })
}

/// Raises InvalidInputError where a JSON list of quota rules has no valid reading.
#[pyfunction]
pub fn check_quota_rules(py: Python<'_>, rules: &str) -> PyResult<()> {
    QuotaRule::parse_list(rules).map(drop).or_raise(py)
}
