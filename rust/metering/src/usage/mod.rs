//! Usage: events taken once, and what they add up to.

mod accumulate;
mod aggregate;
mod batch;
mod commitment;
mod recount;
mod seen;
mod segment;
mod series;
mod table;
mod totals;

pub use accumulate::Accumulator;
pub use aggregate::{Aggregate, Bucket, Query, Total};
pub use batch::{Batch, Row};
pub use commitment::{Hash, inclusion, inclusion_root, leaf_hash, root};
pub use seen::Seen;
pub use segment::{Bytes, Group, Rows, Segment, SegmentBuilder};
pub use series::{Leaves, Series};
pub use table::{Event, UsageTable};
pub use totals::{Line, Part, Pass, Step, Totals, Which};
