//! The locks of the queue, by one name, so that a test can put in their place locks whose interleavings it chooses.

pub use creto_enablement_common::sync::{Condvar, Mutex};
pub use std::sync::atomic::AtomicU64;
