//! Records as the first release wrote them: every later one has to read them, and to write them byte by byte.
//! `CRETO_GOLDEN=write cargo test -p creto-audit --test golden` adds files that are missing; it changes none.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use creto_audit::encoding::{borrowed, decode, encode};
use creto_enablement_common::{AuditRecord, Outcome, RecordKind, Timestamp};
use std::path::PathBuf;

fn plain() -> AuditRecord {
    AuditRecord {
        who: "spiffe://creto.local/agent/researcher".into(),
        delegation_chain: Vec::new(),
        what: "http:get".into(),
        resource: "https://example.org/".into(),
        why: String::new(),
        outcome: None,
        timestamp: Timestamp::from_word(7_340_032_000_000_000_123),
        signature: Vec::new(),
        id: [1; 16],
        act: [2; 16],
        kind: RecordKind::Intent,
        digest: None,
        policy: None,
        usage: Vec::new(),
        detail: Vec::new(),
    }
}

fn cases() -> Vec<(&'static str, AuditRecord)> {
    let full = AuditRecord {
        delegation_chain: vec!["spiffe://creto.local/agent/lead".into(), "spiffe://creto.local/agent/second".into()],
        why: "policy `reads`".into(),
        outcome: Some(Outcome::Failure("no route to host".into())),
        kind: RecordKind::Outcome,
        digest: Some([3; 32]),
        policy: Some([4; 32]),
        usage: vec![("requests".into(), 1), ("bytes".into(), 5_000_000_000)],
        detail: vec![("path".into(), "[\"org\",\"team\"]".into()), ("ü".into(), "naïve ☂".into())],
        ..plain()
    };
    vec![
        ("plain", plain()),
        ("full", full),
        ("success", AuditRecord { outcome: Some(Outcome::Success), kind: RecordKind::Outcome, ..plain() }),
        ("refusal", AuditRecord { kind: RecordKind::Refusal, why: "no permit".into(), ..plain() }),
        ("event", AuditRecord { kind: RecordKind::Event, resource: "x".repeat(70_000 / 2), ..plain() }),
    ]
}

#[test]
fn records_of_version_1_are_read_and_written_byte_by_byte() {
    for (name, record) in cases() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("v1-{name}.cbor"));
        let mut bytes = Vec::new();
        borrowed(&record, |r| encode(r, &mut bytes));
        if !path.exists() && std::env::var_os("CRETO_GOLDEN").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let golden = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(decode(&golden).unwrap(), record, "{name}");
        assert_eq!(bytes, golden, "{name}");
    }
}
