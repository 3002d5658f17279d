//! The enforcer.

use super::lease::{need_dict, need_of};
use super::prepared::{PreparedQuota, QuotaBatch};
use super::reservation::Reservation;
use super::shown::{counter_dict, notice_dict, refusal_dict};
use super::{Quantities, names, texts, time, whole, with_use};
use crate::error::IntoPy;
use creto_enablement_common::ports::QuotaEnforcer as _;
use creto_enablement_common::{Error, Timestamp};
use creto_metering::{Boost, LeaseGrant, QuotaEnforcer as Enforcer, QuotaRule, ReplayRecord, Scope};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

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
        with_use(path, usage, |path, usage| self.inner.check_quota(path, usage, time(&self.inner, now)))?.or_raise(py)
    }

    /// Takes `usage` for good, or raises QuotaExceededError.
    #[pyo3(signature = (path, usage, *, now = None))]
    fn consume_nowait<'py>(&self, py: Python<'py>, path: &Bound<'py, PyAny>, usage: &Bound<'py, PyDict>, now: Option<u64>) -> PyResult<()> {
        with_use(path, usage, |path, usage| self.inner.consume(path, usage, time(&self.inner, now)))?.or_raise(py)
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
        let id = with_use(path, usage, |path, usage| self.inner.reserve(path, usage, time(&self.inner, now)))?.or_raise(py)?;
        Ok(Reservation::of(self.shared(), id))
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
        let refusal = with_use(path, usage, |path, usage| self.inner.explain(path, usage, time(&self.inner, now)))?.or_raise(py)?;
        refusal.map(|refusal| refusal_dict(py, &refusal)).transpose()
    }

    /// Looks a path and its meters up once.
    fn prepare<'py>(&self, py: Python<'py>, path: &Bound<'py, PyAny>, meters: &Bound<'py, PyAny>) -> PyResult<PreparedQuota> {
        let (path, meters) = (names(py, path)?, names(py, meters)?);
        let (path, meters) = (texts(&path)?, texts(&meters)?);
        let prepared = self.inner.prepare(&path, &meters).or_raise(py)?;
        Ok(PreparedQuota {
            enforcer: self.shared(),
            prepared,
            path: path.into_iter().map(Into::into).collect(),
            meters: meters.into_iter().map(Into::into).collect(),
            hold: self.inner.hold(),
        })
    }

    /// An empty batch over this enforcer.
    fn batch(&self) -> QuotaBatch {
        QuotaBatch { enforcer: self.shared(), batch: creto_enablement_common::sync::RwLock::default() }
    }

    /// Installs another list of rules (JSON); counts go on where scope, meter and window are the same.
    #[pyo3(signature = (rules, *, now = None))]
    fn install(&self, py: Python<'_>, rules: &str, now: Option<u64>) -> PyResult<()> {
        self.inner.install(QuotaRule::parse_list(rules).or_raise(py)?, time(&self.inner, now));
        Ok(())
    }

    /// Allows one scope `units` more until `until` (microseconds since the epoch); how many counters were raised.
    #[pyo3(signature = (scope, meter, units, until, *, now = None))]
    fn boost<'py>(
        &self,
        py: Python<'py>,
        scope: &str,
        meter: &str,
        units: &Bound<'py, PyAny>,
        until: &Bound<'py, PyAny>,
        now: Option<u64>,
    ) -> PyResult<usize> {
        let units = whole(py, || format!("boost of `{meter}`"), units)?;
        let until = whole(py, || format!("boost of `{meter}` until"), until)?;
        let boost = Boost { scope: Scope::parse(scope).or_raise(py)?, meter: meter.to_owned(), units, until };
        self.inner.boost(boost, time(&self.inner, now)).or_raise(py)
    }

    /// Every counter, as dicts.
    #[pyo3(signature = (*, now = None))]
    fn counters<'py>(&self, py: Python<'py>, now: Option<u64>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.inner.counters(time(&self.inner, now)).iter().map(|counter| counter_dict(py, counter)).collect()
    }

    /// The notices given since the last call, as dicts.
    fn notices<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.inner.notices().iter().map(|notice| notice_dict(py, notice)).collect()
    }

    /// How many reservations are open.
    fn open_reservations(&self) -> usize {
        self.inner.open_reservations()
    }

    /// Gives back what overdue reservations hold.
    #[pyo3(signature = (*, now = None))]
    fn expire(&self, now: Option<u64>) {
        self.inner.expire(time(&self.inner, now));
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
        self.inner.lease_needs(time(&self.inner, now)).iter().map(|need| need_dict(py, need)).collect()
    }

    /// Every lease held, as dicts.
    #[pyo3(signature = (*, now = None))]
    fn leases_held<'py>(&self, py: Python<'py>, now: Option<u64>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.inner.leases(time(&self.inner, now)).iter().map(|need| need_dict(py, need)).collect()
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
        self.inner.grant(&grant, time(&self.inner, now)).or_raise(py)
    }

    /// Gives up what is leased and not used (a dict of `leases_held`); how many units go back.
    #[pyo3(signature = (lease, *, now = None))]
    fn surrender(&self, py: Python<'_>, lease: &Bound<'_, PyDict>, now: Option<u64>) -> PyResult<u64> {
        self.inner.surrender(&need_of(py, lease)?, time(&self.inner, now)).or_raise(py)
    }

    /// To be called in a forked child: leases stay with the parent.
    fn forked(&self) {
        self.inner.forked();
    }
}

/// Raises InvalidInputError where a JSON list of quota rules has no valid reading.
#[pyfunction]
pub fn check_quota_rules(py: Python<'_>, rules: &str) -> PyResult<()> {
    QuotaRule::parse_list(rules).map(drop).or_raise(py)
}
