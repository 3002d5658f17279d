//! The native module `creto._core`: one file per crate, conversions only.
//!
//! No logic lives here, and no thread of ours ever attaches to Python: completions go through `bridge`.

use pyo3::prelude::*;

mod audit;
mod authz;
mod bridge;
mod common;
mod consensus;
mod crypto;
mod error;
mod gate;
mod messaging;
mod metering;
mod nhi;
mod oversight;
mod runtime;
mod value;

/// The native half of creto; import the public names from `creto` instead.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    for register in [
        bridge::register,
        common::register,
        crypto::register,
        consensus::register,
        nhi::register,
        authz::register,
        audit::register,
        metering::register,
        oversight::register,
        runtime::register,
        messaging::register,
        gate::register,
    ] {
        register(module)?;
    }
    Ok(())
}
