//! Entry points for fuzzing: one for each decoder of bytes or text from outside.
//!
//! An entry point takes any bytes, never fails on them, and panics where a law of its decoder does not hold. `make fuzz` drives them by
//! libFuzzer; `tests/replay.rs` runs what is in `corpus/` and `findings/` through them on every `make test`.
//!
//! A new target: a function here or in a module, a line in `TARGETS`, and seeds in `corpus/<name>/` (`cargo run -p creto-fuzz --example
//! seeds` writes those that have to be signed or sealed).
#![allow(clippy::panic, clippy::expect_used, missing_docs, reason = "a law that does not hold is told by a panic; the names say the rest")]

mod ledger;
mod messages;
mod network;
mod policy;
mod statements;
pub mod world;

pub use ledger::encoded;
pub use statements::an_act;

/// One decoder.
pub struct Target {
    /// Its name, which is also that of its folder of seeds.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
}

const fn target_of(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// Every decoder.
pub const TARGETS: &[Target] = &[
    target_of("record", ledger::record),
    target_of("segment", ledger::segment),
    target_of("tile", ledger::tile),
    target_of("note", ledger::note),
    target_of("proof", ledger::proof),
    target_of("envelope", messages::envelope),
    target_of("header", messages::header),
    target_of("attachment", messages::attachment),
    target_of("dsse", statements::dsse),
    target_of("grant", statements::grant),
    target_of("act", statements::act),
    target_of("delegation", statements::delegation),
    target_of("certificate", statements::certificate),
    target_of("keys", statements::keys),
    target_of("cedar", policy::cedar),
    target_of("cedar_json", policy::cedar_json),
    target_of("entity", policy::entity),
    target_of("quotas", policy::quotas),
    target_of("tls", network::tls),
    target_of("http", network::http),
    target_of("dns", network::dns),
    target_of("guest", network::guest),
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn text(bytes: &[u8]) -> Option<&str> {
    core::str::from_utf8(bytes).ok()
}
