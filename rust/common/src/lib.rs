//! What every part shares: errors, the words of an act (check, decision, record, outcome), configuration's trait, and the ports.
//!
//! Products see each other only through the ports here. This crate decides nothing, stores nothing and opens nothing.

mod act;
mod config;
mod error;
mod operation;
pub mod ports;
mod prefetch;
mod record;
mod settings;
pub mod sync;
mod value;

pub use act::{CheckRef, CheckRequest, Decision, Usage};
pub use config::{ConfigError, EnablementConfig};
pub use creto_consensus::Timestamp;
pub use creto_crypto::{Algorithm, Signature};
pub use creto_nhi::{AgentId, AgentIdentity, DelegationChain};
pub use error::{Category, Error, ErrorKind, Result, ResultExt, RetryPolicy};
pub use operation::{audited_operation, authorized_operation};
pub use prefetch::prefetch;
pub use record::{AuditRecord, Digest, Outcome, OutcomeRef, RecordKind, RecordRef};
pub use settings::CommonConfig;
pub use value::{Fields, Value};
