//! Counters, notices and refusals as dicts.

use creto_metering::{Counter, Notice, Refusal};
use pyo3::prelude::*;
use pyo3::types::PyDict;

pub(super) fn refusal_dict<'py>(py: Python<'py>, refusal: &Refusal) -> PyResult<Bound<'py, PyDict>> {
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

pub(super) fn counter_dict<'py>(py: Python<'py>, counter: &Counter) -> PyResult<Bound<'py, PyDict>> {
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

pub(super) fn notice_dict<'py>(py: Python<'py>, notice: &Notice) -> PyResult<Bound<'py, PyDict>> {
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
}
