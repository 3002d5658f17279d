//! Why an act may not go on.

use creto_enablement_common::ports::Ticket;
use creto_enablement_common::{Error, ErrorKind};
use std::sync::Arc;

/// A refusal: a value, not an exception.
#[derive(Debug)]
pub struct Refusal {
    /// `Unauthorized`, `OversightRequired`, `QuotaExceeded`, or what a part failed with; all of them refuse.
    pub error: Error,
    /// Every oversight policy whose agreement is needed, sorted.
    pub oversight: Vec<Arc<str>>,
    /// The record of the refusal in the ledger's queue, where one was written.
    pub ticket: Option<Ticket>,
}

impl Refusal {
    pub(crate) fn denied(what: String) -> Self {
        Self { error: Error::new(ErrorKind::Unauthorized).with_context(what), oversight: Vec::new(), ticket: None }
    }
}
