//! Delegation chains: verified cold against the signatures in them, and asked for hot by their handle.

use creto_benches::{Row, batches};
use creto_crypto::{KemKey, SigningKey, Suite, dsse};
use creto_nhi::{AgentId, Authority, DelegationChain, Directory, Hop, HopRequest, Verification};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

const NOW: u64 = 1_790_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let authority = Authority::generate("creto.bench", Suite::Standard, NOW, 1_000_000)?;
    let directory = Directory::default();
    let mut agents = Vec::new();
    for number in 0..4 {
        let id = AgentId::agent("creto.bench", &format!("a{number}"))?;
        let key = SigningKey::generate(Suite::Standard)?;
        let kem = KemKey::generate(Suite::Standard.kem())?;
        let statement = authority.issue(&id, key.verifying_key(), kem.public_key(), NOW, 500_000)?;
        let identity = Arc::new(authority.domain().admit(&statement)?);
        directory.add(Arc::clone(&identity));
        agents.push((id, key, identity));
    }
    let verification = Verification { keys: &directory, audience: "creto.bench", now: NOW + 1 };
    let mut hops: Vec<Hop> = Vec::new();
    let mut chain: Option<DelegationChain> = None;
    for (pair, depth) in agents.windows(2).zip([3, 2, 1]) {
        let [(delegator, key, _), (_, _, delegatee)] = pair else { continue };
        let request = HopRequest {
            delegator,
            delegatee,
            attenuation: "permit(principal, action == Action::\"http:get\", resource);",
            audience: "creto.bench",
            issued_at: NOW,
            expiry: NOW + 1000,
            depth,
        };
        hops.push(Hop::sign(&request, key, chain.as_ref())?);
        chain = Some(verification.verify(&hops)?);
    }
    let chain = Arc::new(chain.ok_or("no chain")?);

    let mut prepared = Vec::new();
    for ((_, key, _), hop) in agents.iter().zip(&hops) {
        let message = dsse::pre_authentication_encoding(dsse::IN_TOTO, &dsse::unverified_payload(&hop.0)?);
        prepared.push((key.verifying_key().clone(), key.sign(&message)?, message));
    }
    let (signatures, _) = batches(9, 300, |_| prepared.iter().all(|(key, made, message)| key.verify(message, made).is_ok()));
    let (cold, spread) = batches(9, 300, |_| verification.verify(black_box(&hops)).is_ok());
    Row {
        area: "nhi",
        case: "verify/3-hop/cold",
        unit: "us",
        ours: cold / 1000.0,
        peer: Some(("sum-of-signatures", "aws-lc", signatures / 1000.0)),
        samples: 2700,
        spread,
        note: "three hops from their JSON: structure, who signed what for whom, six signatures; the peer verifies the six alone",
    }
    .print();

    let (hot, spread) = batches(9, 1_000_000, |i| black_box(&chain).is_current(black_box(5), 5, NOW + (i as u64 & 1)));
    Row {
        area: "nhi",
        case: "verify/hot",
        unit: "ns",
        ours: hot,
        peer: None,
        samples: 9_000_000,
        spread,
        note: "a chain verified before, by its handle: revocation epoch and expiry",
    }
    .print();
    Ok(())
}
