//! Usage between the ledger, which keeps it, and metering, which adds it up: the way in, the way out, and segments.

mod index;
mod ingest;
mod records;

pub use index::{Index, Opened, Stretch, totals_of};
pub use ingest::{Ingest, MOST, Taken};
pub use records::{BATCH, Reading, act_usage, each_usage};
