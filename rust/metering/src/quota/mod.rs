//! Quota: counted before the act, along the whole path of who acts for whom, on all of it or on none of it.

mod astray;
mod batch;
mod chain;
mod consume;
mod counter;
mod enforcer;
mod install;
mod lease;
mod lend;
#[cfg(test)]
mod linearity;
mod lock;
mod names;
mod organisation;
mod organisations;
mod pages;
mod prepared;
mod refusal;
mod replay;
mod reservation;
mod rule;
mod span;
mod stripe;

pub use batch::{Amounts, Batch};
pub use enforcer::QuotaEnforcer;
pub use install::Boost;
pub use lease::{LeaseGrant, LeaseNeed};
pub use prepared::Prepared;
pub use refusal::{Notice, Refusal};
pub use replay::{Counter, ReplayRecord};
pub use rule::{Level, QuotaRule, Scope};
pub use span::Span;
