//! The port to the ledger.

use crate::{RecordRef, Result};

/// What must be true before an append returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// On disk.
    #[default]
    Strict,
    /// In the queue, which never drops.
    Relaxed,
}

/// A place in the queue of one ledger; later ones are larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Takes records for the ledger.
pub trait AuditSink: Send + Sync {
    /// Puts a record in the queue; waits only where the queue is full, and never drops.
    fn enqueue(&self, record: &RecordRef<'_>) -> Result<Ticket>;
    /// Returns once that record, and all before it, are on disk.
    fn wait_durable(&self, ticket: Ticket) -> Result<()>;

    /// Appends with the durability asked for.
    fn append(&self, record: &RecordRef<'_>, durability: Durability) -> Result<Ticket> {
        let ticket = self.enqueue(record)?;
        if durability == Durability::Strict {
            self.wait_durable(ticket)?;
        }
        Ok(ticket)
    }
}
