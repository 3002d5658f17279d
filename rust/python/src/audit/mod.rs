//! `creto-audit` for Python.

mod follow;
mod hexadecimal;
mod ledger;
mod record;
mod shard;
mod subject;
mod witness;

pub use follow::{LedgerFollower, ledger_term};
pub use ledger::Ledger;
pub use shard::{LedgerShard, Progress};
pub use subject::LedgerSubjects;
pub use witness::{LedgerWitness, ledger_cosigned, ledger_with_cosignature};

use crate::crypto::VerifyingKey;
use crate::error::IntoPy;
use creto_audit::{Proof, encoding, note};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use record::to_dict;
use shard::checkpoint_dict;
use std::path::PathBuf;

/// The names of the shards of a ledger folder, in order.
#[pyfunction]
pub fn ledger_shards(py: Python<'_>, folder: PathBuf) -> PyResult<Vec<String>> {
    py.detach(|| creto_audit::shards(&folder)).or_raise(py)
}

/// Calls `work` while this process holds a shard that nobody holds; False where somebody does, and nothing was called.
#[pyfunction]
pub fn ledger_while_vacant(py: Python<'_>, folder: PathBuf, name: &str, work: &Bound<'_, PyAny>) -> PyResult<bool> {
    match creto_audit::while_vacant(&folder, name, || work.call0()).or_raise(py)? {
        Some(done) => done.map(|_| true),
        None => Ok(false),
    }
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
    module.add_function(wrap_pyfunction!(witness::ledger_with_cosignature, module)?)?;
    module.add_function(wrap_pyfunction!(witness::ledger_cosigned, module)?)?;
    module.add_class::<Progress>()?;
    module.add_function(wrap_pyfunction!(ledger_shards, module)?)?;
    module.add_function(wrap_pyfunction!(ledger_while_vacant, module)?)?;
    module.add_function(wrap_pyfunction!(ledger_verify_proof, module)?)?;
    module.add_function(wrap_pyfunction!(ledger_decode, module)?)?;
    module.add_function(wrap_pyfunction!(follow::ledger_term, module)?)?;
    module.add_function(wrap_pyfunction!(ledger_verifier_keys, module)?)
}
