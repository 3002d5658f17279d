//! Leases as dicts, and back.

use creto_enablement_common::Error;
use creto_metering::{LeaseNeed, Level};
use pyo3::prelude::*;
use pyo3::types::PyDict;

pub(super) fn need_dict<'py>(py: Python<'py>, need: &LeaseNeed) -> PyResult<Bound<'py, PyDict>> {
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

pub(super) fn need_of(py: Python<'_>, dict: &Bound<'_, PyDict>) -> PyResult<LeaseNeed> {
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
