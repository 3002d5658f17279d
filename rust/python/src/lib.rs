//! The native module `creto._core`: one file per crate, conversions only.
//!
//! No logic lives here, and no thread of ours ever attaches to Python: completions go through `bridge`.

use pyo3::prelude::*;

mod analysis;
mod audit;
mod authz;
mod billing;
mod bridge;
mod canonical;
mod common;
mod consensus;
mod crypto;
mod decision;
mod error;
mod gate;
mod lent;
mod messaging;
mod nhi;
mod oversight;
mod quota;
mod runtime;
mod usage;
mod value;

/// The native half of creto; import the public names from `creto` instead.
#[pymodule]
mod _core {
    // Listed by name, and not only registered: the stubs are made from this list.
    #[pymodule_export]
    use crate::analysis::{policy_compare, policy_examine, policy_prove};
    #[pymodule_export]
    use crate::audit::{
        Ledger, LedgerFollower, LedgerShard, LedgerSubjects, LedgerWitness, Progress, ledger_cosigned, ledger_decode, ledger_shards,
        ledger_term, ledger_verifier_keys, ledger_verify_proof, ledger_while_vacant, ledger_with_cosignature,
    };
    #[pymodule_export]
    use crate::authz::{PolicyEngine, Prepared, Roster, policy_findings};
    #[pymodule_export]
    use crate::billing::{UsageIndex, UsageIngest, UsageTotals, usage_events, usage_leaf, usage_leaves};
    #[pymodule_export]
    use crate::bridge::Bridge;
    #[pymodule_export]
    use crate::canonical::canonical_json;
    #[pymodule_export]
    use crate::common::check_section;
    #[pymodule_export]
    use crate::consensus::{HybridLogicalClock, consensus_timestamp};
    #[pymodule_export]
    use crate::crypto::{KemKey, Sealer, SigningKey, VerifyingKey, crypto_providers, dsse_sign, dsse_verify};
    #[pymodule_export]
    use crate::decision::Decision;
    #[pymodule_export]
    use crate::error::_round_trip;
    #[pymodule_export]
    use crate::gate::{Gate, Permit, Principal};
    #[pymodule_export]
    use crate::messaging::{
        VerifiedEnvelope, attachment_check, attachment_open, attachment_seal, envelope_header, envelope_seal, envelope_verify,
    };
    #[pymodule_export]
    use crate::nhi::{Authority, Chain, ChainCache, Directory, Identity, TrustDomain, delegate, delegation_names};
    #[pymodule_export]
    use crate::oversight::{PyAct, PyGrant, oversight_after, oversight_answer, oversight_is_final};
    #[pymodule_export]
    use crate::quota::{
        PreparedQuota, QuotaBatch, QuotaEnforcer, Reservation, check_quota_rules, quota_fork_begins, quota_fork_over,
        quota_fork_over_in_child,
    };
    #[pymodule_export]
    use crate::runtime::{SandboxLease, SandboxPool};
    #[pymodule_export]
    use crate::usage::{ActPrice, UsageTable, merkle_hash_root, merkle_leaf, merkle_path, merkle_root, usage_window};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("NO_UNITS_LEASED", creto_metering::Refusal::LEASE)?;
        for register in [
            crate::bridge::register,
            crate::common::register,
            crate::crypto::register,
            crate::consensus::register,
            crate::nhi::register,
            crate::authz::register,
            crate::analysis::register,
            crate::audit::register,
            crate::oversight::register,
            crate::runtime::register,
            crate::messaging::register,
            crate::gate::register,
        ] {
            register(module)?;
        }
        Ok(())
    }
}
