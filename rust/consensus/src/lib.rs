//! One notion of time for everything that shares a state folder.
//!
//! This crate never sleeps and never asks a network for the time.

mod hybrid;
mod page;
mod process;
mod source;
mod timestamp;

pub use hybrid::{HybridLogicalClock, Jumps, TooFarAhead};
pub use process::{consensus_timestamp, install};
pub use timestamp::Timestamp;
