//! Writes the seeds that have to be signed, sealed or encoded; the rest are kept as they are. Run: `cargo run -p creto-fuzz --example seeds`.

use creto_audit::note::{Checkpoint, sign};
use creto_audit::{Proof, segment, tile};
use creto_crypto::dsse::{IN_TOTO, sign as sign_statement};
use creto_enablement_common::{AuditRecord, Outcome, RecordKind, Timestamp};
use creto_fuzz::world::{DOMAIN, NOW, WORLD};
use creto_fuzz::{an_act, encoded};
use creto_messaging::{Outgoing, Priority, seal, unverified_header};
use creto_nhi::{Hop, HopRequest, Keys, Verification};
use creto_oversight::{Answer, Statement, Terms};
use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let world = &*WORLD;
    let record = AuditRecord {
        who: world.agent(0).id.as_str().into(),
        delegation_chain: vec![world.agent(1).id.as_str().into()],
        what: "http:get".into(),
        resource: "https://example.org/".into(),
        why: "allow-web".into(),
        outcome: Some(Outcome::Failure("timed out".into())),
        timestamp: Timestamp::from_word(NOW << 32),
        signature: Vec::new(),
        id: [1; 16],
        act: [2; 16],
        kind: RecordKind::Outcome,
        digest: Some([3; 32]),
        policy: Some([4; 32]),
        usage: vec![("requests".into(), 1)],
        detail: vec![("path".into(), "acme/a1".into())],
    };
    let bytes = encoded(&record);
    put("record", "whole", &bytes)?;
    let bare = AuditRecord {
        delegation_chain: vec![],
        outcome: Some(Outcome::Success),
        digest: None,
        policy: None,
        usage: vec![],
        detail: vec![],
        ..record
    };
    put("record", "bare", &encoded(&bare))?;

    let mut frames = segment::header(7).to_vec();
    for (index, back) in [(7, 0), (8, 0), (9, 1)] {
        segment::push(&mut frames, index, back, &bytes);
    }
    frames.resize(frames.len() + 64, 0);
    put("segment", "three", &frames)?;
    let mut bundle = vec![2];
    tile::push_entry(&mut bundle, &bytes);
    tile::push_entry(&mut bundle, b"x");
    put("tile", "entries", &bundle)?;
    put("tile", "hashes", &[9; 64])?;

    let checkpoint = Checkpoint { origin: "creto.test/log".into(), size: 2, root: [6; 32] };
    let note = sign(&checkpoint, &world.agent(0).signing)?;
    put("note", "checkpoint", note.to_text().as_bytes())?;
    put("proof", "one", Proof { index: 1, path: vec![[5; 32]], note }.to_text().as_bytes())?;

    let to: Vec<_> = [1, 2].map(|n| (world.agent(n).id.clone(), world.agent(n).kem.public_key().clone())).into();
    let message = Outgoing {
        from: &world.agent(0).id,
        to: &to,
        message_id: [7; 16],
        date: NOW,
        expires: NOW + 60,
        content_type: "text/plain",
        in_reply_to: Some([8; 16]),
        priority: Priority::Normal,
        chain: None,
        body: b"hello",
    };
    let envelope = seal(&message, &world.agent(0).signing)?;
    put("envelope", "two-recipients", &envelope)?;
    put("header", "whole", &unverified_header(&envelope, world.agent(0).signing.suite())?.encode()?)?;

    put("dsse", "empty", sign_statement(&world.agent(0).signing, IN_TOTO, b"{}")?.as_bytes())?;
    let act = an_act();
    put("act", "whole", &act.core()?)?;
    let statement = Statement {
        request: "r",
        terms: Terms { policy: "p", nonce: &[1; 16], expiry: NOW * 2_000_000 },
        approver: world.agent(1).id.as_str(),
        answer: Answer::Approved,
        reason: "fine",
        decided: NOW * 1_000_000,
    };
    put("grant", "approved", &payload(&statement.sign(&act, &world.agent(1).signing)?)?)?;

    // Each hop's payload; the entry point signs it again with the same keys.
    let identity = |n: usize| world.directory.identities(&world.agent(n).id).remove(0);
    let first = hop(0, 1, 1, None)?;
    let chain = Verification { keys: &world.directory, audience: DOMAIN, now: NOW }.verify(std::slice::from_ref(&first))?;
    let second = hop(1, 2, 0, Some(&chain))?;
    put("delegation", "one", &payload(&first.0)?)?;
    put("delegation", "two", &[payload(&first.0)?, b"\n".to_vec(), payload(&second.0)?].concat())?;
    let mine = identity(0);
    for (number, der) in mine.certificates().iter().enumerate() {
        put("certificate", &format!("identity-{number}"), der)?;
    }
    put("keys", "set", world.agent(0).signing.verifying_key().to_bytes())?;
    Ok(())
}

fn hop(from: usize, to: usize, depth: u32, previous: Option<&creto_nhi::DelegationChain>) -> Result<Hop, Box<dyn Error>> {
    let world = &*WORLD;
    let delegatee = world.directory.identities(&world.agent(to).id).remove(0);
    let request = HopRequest {
        delegator: &world.agent(from).id,
        delegatee: &delegatee,
        attenuation: "permit(principal, action == Action::\"http:get\", resource);",
        audience: DOMAIN,
        issued_at: NOW - 10,
        expiry: NOW + 100 - u64::from(1 - depth),
        depth,
    };
    Ok(Hop::sign(&request, &world.agent(from).signing, previous)?)
}

fn payload(envelope: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    Ok(creto_crypto::dsse::unverified_payload(envelope)?)
}

fn put(target: &str, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)?;
    Ok(())
}
