//! One notion of time for everything that shares a state folder.
//!
//! This crate never sleeps and never asks a network for the time.

mod clock;
mod timestamp;

pub use clock::consensus_timestamp;
pub use timestamp::Timestamp;
