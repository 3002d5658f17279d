//! The envelope: CMS, encrypted for its recipients and signed by its writer, with post-quantum keys.
//!
//! This crate seals, verifies and opens; it never stores, carries or authorizes a message. The format is described in `docs/envelope.md`.

mod attachment;
mod header;
mod oid;
mod open;
mod profile;
mod seal;
pub mod settings;
mod time;

pub use attachment::{check_chunk, open_attachment, seal_attachment};
pub use header::{Header, MAX_RECIPIENTS, Priority, unhex};
pub use open::{Acceptance, CLOCK_SKEW_SECONDS, DIRECT_SECONDS, MAILBOX_SECONDS, Verified, unverified_header, verify};
pub use seal::{Outgoing, seal};

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod trial;
