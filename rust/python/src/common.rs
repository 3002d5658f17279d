//! `creto-enablement-common` for Python.

use crate::error;
use pyo3::prelude::*;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(error::_round_trip, module)?)
}
