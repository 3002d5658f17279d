//! Quota, usage aggregation, rating.
//!
//! Nothing here opens a file, reads a clock or starts a thread: time comes in with each call, and what must outlive the process is
//! rebuilt from the ledger's records (`QuotaEnforcer::replay`) or leased from an authority that the caller talks to.

pub mod quota;
pub mod rating;
pub mod settings;
pub mod usage;

pub use quota::{
    Amounts, Batch, Boost, Counter, LeaseGrant, LeaseNeed, Level, Notice, Prepared, QuotaEnforcer, QuotaRule, Refusal, ReplayRecord, Scope,
    Span,
};
pub use rating::ActPrice;
pub use usage::{Aggregate, Bucket, Event, Query, Total, UsageTable};
