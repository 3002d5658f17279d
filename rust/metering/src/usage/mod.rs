//! Usage: events taken once, and what they add up to.

mod aggregate;
mod commitment;
mod table;

pub use aggregate::{Aggregate, Bucket, Query, Total};
pub use commitment::{inclusion, inclusion_root, leaf_hash, root};
pub use table::{Event, UsageTable};
