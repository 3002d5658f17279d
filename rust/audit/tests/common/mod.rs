//! What the tests of the ledger share: a folder that goes away, a key, a record.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use creto_audit::disk::Machine;
use creto_audit::{Ledger, Options, Shard};
use creto_consensus::{HybridLogicalClock, Timestamp};
use creto_crypto::{SigningKey, Suite};
use creto_enablement_common::{RecordKind, RecordRef};
use std::path::PathBuf;
use std::sync::Arc;

pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("creto-ledger-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn ledger(&self) -> PathBuf {
        self.0.join("ledger")
    }

    pub fn clock(&self) -> HybridLogicalClock {
        HybridLogicalClock::open(&self.0.join("clock")).unwrap()
    }

    pub fn open(&self, key: &SigningKey) -> Arc<Ledger> {
        self.try_open(key).unwrap()
    }

    pub fn try_open(&self, key: &SigningKey) -> creto_enablement_common::Result<Arc<Ledger>> {
        Ledger::open(&self.ledger(), &self.clock(), key.clone(), Options::default())
    }

    pub fn shard(&self, name: &str) -> Shard {
        Shard::open(Arc::new(Machine), &self.ledger().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn key() -> SigningKey {
    SigningKey::generate(Suite::Standard).unwrap()
}

pub fn id(number: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    id
}

pub fn record(number: u64, timestamp: Timestamp) -> RecordRef<'static> {
    RecordRef {
        who: "spiffe://creto.local/agent/researcher",
        delegation_chain: &["spiffe://creto.local/agent/lead"],
        what: "http:get",
        resource: "https://example.org/",
        why: "policy `reads`",
        outcome: None,
        timestamp,
        id: id(number),
        act: id(number),
        kind: RecordKind::Intent,
        digest: None,
        policy: None,
        usage: &[("requests", 1)],
        detail: &[("purpose", "survey")],
    }
}
