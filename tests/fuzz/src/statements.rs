//! Signed statements, and what stands behind their signatures: an input is signed here first, so that a fuzzer gets past them.

use crate::text;
use crate::world::{DOMAIN, NOW, WORLD};
use creto_crypto::{Algorithm, VerifyingKey, asn1, dsse as envelopes, spki};
use creto_nhi::{Hop, Verification, certificate as certificates, unverified_names};
use creto_oversight::{Act, Encoded, Grant, Terms};

pub fn dsse(bytes: &[u8]) {
    let Some(envelope) = text(bytes) else { return };
    let _ = envelopes::unverified_payload(envelope);
    let key = WORLD.agent(0).signing.verifying_key();
    if let Ok(parsed) = envelopes::Unverified::parse(envelopes::IN_TOTO, envelope) {
        let holds = parsed.verify(key).is_ok();
        assert_eq!(envelopes::verify(key, envelopes::IN_TOTO, envelope).is_ok(), holds);
    }
}

/// The act that grants are held against.
pub fn an_act() -> Act {
    let context = Encoded::from_json(serde_json::json!({})).expect("a record");
    Act::new(WORLD.agent(0).id.as_str(), &[3; 32], "tool:call", "send_money", context, &[("tool_calls".into(), 1)]).expect("an act")
}

pub fn grant(bytes: &[u8]) {
    let world = &*WORLD;
    let Ok(envelope) = envelopes::sign(&world.agent(1).signing, envelopes::IN_TOTO, bytes) else { return };
    let (approver, key) = (world.agent(1).id.as_str(), world.agent(1).signing.verifying_key());
    let act = an_act();
    if let Ok(grant) = Grant::verify(&envelope, &act, approver, key, NOW * 1_000_000) {
        assert!(grant.covers(&act).expect("a digest"));
    }
    let _ = Grant::verify_denial(&envelope, &act, approver, key);
}

pub fn act(bytes: &[u8]) {
    let Ok(act) = Act::from_core(bytes) else { return };
    let core = act.core().expect("what was read is written");
    let again = Act::from_core(&core).expect("what is written is read");
    assert_eq!(again.core().expect("written again"), core, "an act has one document");
    let _ = act.document(&Terms { policy: "p", nonce: &[1; 16], expiry: NOW });
}

/// Hops are parted by line ends; each is signed by one agent after the other.
pub fn delegation(bytes: &[u8]) {
    let world = &*WORLD;
    let hops: Vec<Hop> = bytes
        .split(|byte| *byte == b'\n')
        .take(4)
        .zip(world.agents.iter().cycle())
        .filter_map(|(payload, agent)| envelopes::sign(&agent.signing, envelopes::IN_TOTO, payload).ok().map(Hop))
        .collect();
    let _ = unverified_names(&hops);
    let verification = Verification { keys: &world.directory, audience: DOMAIN, now: NOW };
    if let Ok(chain) = verification.verify(&hops) {
        assert_eq!(chain.links.len(), hops.len() + 1);
    }
    if let Some(unsigned) = text(bytes) {
        let _ = verification.verify(&[Hop(unsigned.to_owned())]);
    }
}

pub fn certificate(bytes: &[u8]) {
    let key = WORLD.agent(0).signing.verifying_key();
    for algorithm in [Algorithm::Ed25519, Algorithm::MlDsa65] {
        let _ = certificates::read(bytes, false, "spiffe://creto.test", key, algorithm);
    }
    walk(bytes, 0);
}

/// Every element, and those inside it: whatever is read stands in the bytes it was read from.
fn walk(bytes: &[u8], depth: usize) {
    let Ok(mut elements) = asn1::Walk::new(bytes) else { return };
    while let Ok(element) = elements.any() {
        assert!(element.content.len() < element.whole.len());
        assert!(element.whole.ends_with(element.content));
        if depth < 16 && element.tag & 0x20 != 0 {
            walk(element.content, depth + 1);
        }
    }
}

pub fn keys(bytes: &[u8]) {
    if let Ok((algorithm, public)) = spki::decode(bytes) {
        assert_eq!(spki::encode(algorithm, public).expect("what was read is written"), bytes, "a key has one encoding");
    }
    if let Ok(key) = VerifyingKey::from_bytes(bytes) {
        assert_eq!(key.to_bytes(), bytes, "a set of keys has one encoding");
    }
    if let Some(text) = text(bytes) {
        let _ = VerifyingKey::from_text(text);
        let _ = creto_enablement_common::AgentId::parse(text);
    }
}
