//! Oversight: the digest of an act, the states of a request, and the grant by which a human agrees to exactly that act.
//!
//! This crate asks nobody and stores nothing; it says what is being agreed to, which step may follow which, and whether a grant holds.

mod act;
mod encode;
mod grant;
pub mod settings;
mod state;

pub use act::{Act, ActDigest, Terms};
pub use encode::Encoded;
pub use grant::{Answer, Grant, Statement};
pub use state::{Event, State};
