//! `creto-enablement-common` for Python.

use crate::error;
use crate::error::IntoPy;
use creto_enablement_common::{CommonConfig, EnablementConfig, Error};
use creto_messaging::settings::MessagingConfig;
use creto_metering::settings::MeteringConfig;
use creto_oversight::settings::OversightConfig;
use creto_runtime::settings::RuntimeConfig;
use pyo3::prelude::*;

/// Reads a section of the configuration as the part that uses it does: what is wrong as `(setting, problem)`, or None.
#[pyfunction]
pub fn check_section(py: Python<'_>, section: &str, json: &str) -> PyResult<Option<(String, String)>> {
    fn check<C: EnablementConfig>(json: &str) -> Result<Option<(String, String)>, Error> {
        let read: C = serde_json::from_str(json).map_err(|error| Error::invalid(format!("section `{}`: {error}", C::SECTION)))?;
        Ok(read.validate().err().map(|error| (error.setting, error.problem)))
    }
    match section {
        CommonConfig::SECTION => check::<CommonConfig>(json),
        MeteringConfig::SECTION => check::<MeteringConfig>(json),
        OversightConfig::SECTION => check::<OversightConfig>(json),
        RuntimeConfig::SECTION => check::<RuntimeConfig>(json),
        MessagingConfig::SECTION => check::<MessagingConfig>(json),
        _ => Ok(None),
    }
    .or_raise(py)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(error::_round_trip, module)?)
}
