//! What auditors and other processes read: records, segments, tiles, notes, proofs.

use crate::text;
use crate::world::WORLD;
use creto_audit::encoding::{borrowed, decode, encode};
use creto_audit::note::{Checkpoint, Note};
use creto_audit::witness::PublicKey;
use creto_audit::{Proof, segment as frames, tile as tiles};
use creto_enablement_common::AuditRecord;
use std::path::Path;

pub fn record(bytes: &[u8]) {
    if let Ok(record) = decode(bytes) {
        assert_eq!(encoded(&record), bytes, "what is read encodes to the same bytes");
    }
}

pub fn encoded(record: &AuditRecord) -> Vec<u8> {
    let mut out = Vec::new();
    borrowed(record, |record| encode(record, &mut out));
    out
}

pub fn segment(bytes: &[u8]) {
    if let Some(frame) = frames::frame(bytes) {
        assert!(frame.write <= frame.index);
        assert!(frame.length as usize >= frame.payload.len());
    }
    let first = bytes.get(8..16).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes);
    let mut next = first;
    let end = frames::scan(bytes, first, Path::new("segment"), |frame| {
        assert_eq!(frame.index, next, "records follow one another");
        next += 1;
        Ok(())
    });
    if let Ok(end) = end {
        assert_eq!(end.next, next);
    }
}

pub fn tile(bytes: &[u8]) {
    if let Some(hashes) = tiles::hashes(bytes) {
        assert_eq!(hashes.concat(), bytes);
    }
    let Some((count, bundle)) = bytes.split_first() else { return };
    if let Ok(entries) = tiles::entries(bundle, u64::from(*count)) {
        let mut again = Vec::new();
        entries.iter().for_each(|entry| tiles::push_entry(&mut again, entry));
        assert_eq!(again, bundle);
    }
}

pub fn note(bytes: &[u8]) {
    if let Ok(note) = Note::parse(bytes) {
        let again = Note::parse(note.to_text().as_bytes()).expect("what is written is read");
        assert_eq!(again, note);
        let _ = note.verify("log", WORLD.agent(0).signing.verifying_key());
        if let Ok(checkpoint) = Checkpoint::parse(&note.text) {
            assert_eq!(Checkpoint::parse(&checkpoint.text()).expect("what is written is read"), checkpoint);
        }
    }
    if let Some(key) = text(bytes) {
        let _ = PublicKey::parse(key);
    }
}

pub fn proof(bytes: &[u8]) {
    let Some(proof) = text(bytes).and_then(|text| Proof::parse(text).ok()) else { return };
    assert_eq!(Proof::parse(&proof.to_text()).expect("what is written is read"), proof);
    let _ = proof.verify(b"the record", WORLD.agent(0).signing.verifying_key());
    // Behind the signature: any path, against any root.
    let root = creto_audit::merkle::root_from_inclusion([7; 32], proof.index, proof.index.saturating_add(9), &proof.path);
    let _ = root
        .and_then(|root| creto_audit::merkle::verify_consistency(proof.index, &[7; 32], proof.index.saturating_add(3), &root, &proof.path));
}
