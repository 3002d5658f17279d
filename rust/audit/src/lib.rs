//! The ledger: nothing acknowledged is lost, and everything that is there can be proved to be there.
//!
//! A process writes one shard. Records go to a segment first, one sync for all that waits; from there the hash tree of RFC 6962 is derived and
//! laid out as C2SP tlog-tiles, and signed checkpoints are published. Readers need files only. This crate never reads policy, never
//! calls Python and never deletes a record.

mod batch;
mod cbor;
mod checkpoints;
mod commit;
pub mod disk;
pub mod encoding;
mod follow;
mod fork;
mod handover;
mod ids;
mod kept;
mod ledger;
pub mod merkle;
pub mod note;
mod patience;
mod proof;
mod publisher;
mod query;
mod queue;
mod reader;
mod recovery;
mod reserve;
mod sealed;
mod sealer;
pub mod segment;
mod shard;
mod subject;
mod sync;
pub mod terms;
pub mod tile;
mod tree;
mod verify;
pub mod witness;
mod writer;

pub use batch::{BatchPlace, read as read_batch};
pub use follow::Follower;
pub use ledger::{Ledger, Options};
pub use proof::Proof;
pub use query::{Ended, Filter, Found, query};
pub use queue::{Completions, Done};
pub use reader::{Shard, View};
pub use shard::{names as shards, while_vacant};
pub use subject::Subjects;
pub use verify::{Verified, verify};

#[cfg(test)]
mod power_tests;
