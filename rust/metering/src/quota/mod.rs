//! Quota: counted before the act, along the whole path of who acts for whom, on all of it or on none of it.

mod batch;
mod chain;
mod consume;
mod counter;
mod enforcer;
mod install;
mod lease;
mod lock;
mod names;
mod organisation;
mod prefetch;
mod refusal;
mod replay;
mod reservation;
mod rule;
mod span;

pub use batch::{Amounts, Batch};
pub use enforcer::{Prepared, QuotaEnforcer};
pub use install::Boost;
pub use lease::{LeaseGrant, LeaseNeed};
pub use refusal::{Notice, Refusal};
pub use replay::{Counter, ReplayRecord};
pub use rule::{Level, QuotaRule, Scope};
pub use span::Span;
