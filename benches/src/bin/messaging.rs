//! Envelopes against the sum of the primitives that they are made of, measured one by one in the same run.

use creto_benches::{Row, batches};
use creto_crypto::{Algorithm, Hash, KemKey, KemPublicKey, Provider, Secret, SigningKey, Suite};
use creto_messaging::{Acceptance, Outgoing, Priority, seal, verify};
use creto_nhi::{AgentId, Authority, Directory};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

const NOW: u64 = 1_790_000_000;
const SUM: &str = "sum-of-primitives";

type Fallible = Result<(), Box<dyn Error>>;

/// Microseconds: the mean of many calls (ML-DSA signs in random time), the median of repeats of it, and their spread.
fn microseconds(calls: usize, call: &mut dyn FnMut() -> Fallible) -> (f64, f64) {
    let (ns, spread) = batches(7, calls, |_| black_box(call().is_ok()));
    (ns / 1000.0, spread)
}

fn row(case: &str, ours: (f64, f64), peer: Option<f64>, samples: usize, note: &str) {
    let peer = peer.map(|value| (SUM, Provider::chosen().name, value));
    Row { area: "messaging", case, unit: "us", ours: ours.0, peer, samples, spread: ours.1, note }.print();
}

/// Seals or opens so often and says nothing: for a tool that counts instructions.
fn counted(what: &str, times: usize, seal_one: &dyn Fn() -> Fallible, open_one: &dyn Fn() -> Fallible) -> Fallible {
    let one = if what == "seal" { seal_one } else { open_one };
    (0..times).try_for_each(|_| one())
}

fn main() -> Fallible {
    let arguments: Vec<String> = std::env::args().collect();
    let provider = Provider::chosen();
    let suite = Suite::Standard;
    let authority = Authority::generate("creto.bench", suite, NOW, 1_000_000)?;
    let directory = Directory::default();
    let sender = AgentId::agent("creto.bench", "sender")?;
    let signing = SigningKey::generate(suite)?;
    let own = KemKey::generate(suite.kem())?;
    let statement = authority.issue(&sender, signing.verifying_key(), own.public_key(), NOW, 500_000)?;
    directory.add(Arc::new(authority.domain().admit(&statement)?));
    let mut to: Vec<(AgentId, KemPublicKey)> = Vec::new();
    let further = if arguments.len() > 1 { 0 } else { 31 };
    for number in 0..further {
        let key = KemKey::generate(suite.kem())?;
        to.push((AgentId::agent("creto.bench", &format!("r{number}"))?, key.public_key().clone()));
    }
    let (me, key) = (AgentId::agent("creto.bench", "reader")?, KemKey::generate(suite.kem())?);
    to.insert(0, (me.clone(), key.public_key().clone()));

    for (size, name, calls) in [(1024, "1KiB", 400), (1 << 20, "1MiB", 20)] {
        let body = vec![7; size];
        let message = Outgoing {
            from: &sender,
            to: to.get(..1).unwrap_or_default(),
            message_id: [1; 16],
            date: NOW,
            expires: NOW + 60,
            content_type: "application/octet-stream",
            in_reply_to: None,
            priority: Priority::Normal,
            chain: None,
            body: &body,
        };
        let envelope = seal(&message, &signing)?;
        let acceptance = Acceptance { me: &me, directory: &directory, suite, max_bytes: 1 << 22, max_life: 300, now: NOW + 1 };
        let opening = [key.clone()];
        if let [_, count, what, times] = arguments.as_slice()
            && count == "count"
        {
            let seal_one = || {
                black_box(seal(&message, &signing)?);
                Ok(())
            };
            let open_one = || {
                black_box(verify(&envelope, &acceptance)?.open(&envelope, &opening)?);
                Ok(())
            };
            return counted(what, times.parse()?, &seal_one, &open_one);
        }

        // What both sides cannot do without, each by itself, on inputs of the same size.
        let (cek, nonce) = (Secret::random(provider)?, [1; 12]);
        let (mut ciphertext, mut signature) = (Vec::new(), Vec::new());
        let shared = key.public_key().encapsulate_into(&mut ciphertext)?;
        let wrapped = provider.symmetric.wrap(&shared, &cek)?;
        let mut sealed_body = body.clone();
        let tag = provider.symmetric.seal(&cek, &nonce, b"", &mut sealed_body)?;
        let mut buffer = sealed_body.clone();
        // The signed content: all but the signatures and what frames them.
        let content = vec![7; envelope.len() - 3700];
        let attributes = [7; 142];
        let (mut classical, mut lattice) = (Vec::new(), Vec::new());
        signing.sign_with(Algorithm::Ed25519, &attributes, &mut classical)?;
        signing.sign_with(Algorithm::MlDsa65, &attributes, &mut lattice)?;
        let public = signing.verifying_key();
        let measure = |call: &mut dyn FnMut() -> Fallible| microseconds(calls, call).0;
        let common = measure(&mut || {
            black_box(provider.derivation.digest(Hash::Sha512, &[&content]));
            black_box(provider.derivation.hkdf(Hash::Sha256, shared.expose(), &[0; 18])?);
            black_box(provider.derivation.expand(Hash::Sha256, &cek, &[b"creto cek-commit v1", &nonce])?);
            Ok(())
        });
        let encapsulating = measure(&mut || {
            let mut fresh = Vec::with_capacity(1088);
            black_box(key.public_key().encapsulate_into(&mut fresh)?);
            black_box(provider.symmetric.wrap(&shared, &cek)?);
            Ok(())
        });
        let decapsulating = measure(&mut || {
            black_box(key.decapsulate(&ciphertext)?);
            black_box(provider.symmetric.unwrap(&shared, &wrapped)?);
            Ok(())
        });
        // A copy each time: opening in place spoils what it opens, and sealing copies what it is given.
        let encrypting = measure(&mut || {
            buffer.copy_from_slice(&body);
            black_box(provider.symmetric.seal(&cek, &nonce, b"", &mut buffer)?);
            Ok(())
        });
        let decrypting = measure(&mut || {
            buffer.copy_from_slice(&sealed_body);
            Ok(provider.symmetric.open(&cek, &nonce, b"", &mut buffer, &tag)?)
        });
        let mut sign = |algorithm| {
            measure(&mut || {
                signature.clear();
                Ok(signing.sign_with(algorithm, &attributes, &mut signature)?)
            })
        };
        let signing_both = sign(Algorithm::Ed25519) + sign(Algorithm::MlDsa65);
        let verifying_both = measure(&mut || Ok(public.verify_with(Algorithm::Ed25519, &attributes, &classical)?))
            + measure(&mut || Ok(public.verify_with(Algorithm::MlDsa65, &attributes, &lattice)?));

        let suffix = if size == 1024 { "/primitives" } else { "" };
        let one = microseconds(calls, &mut || {
            black_box(seal(&message, &signing)?);
            Ok(())
        });
        row(
            &format!("seal/{name}{suffix}"),
            one,
            Some(common + encapsulating + encrypting + signing_both),
            7 * calls,
            "one recipient, suite standard; the whole envelope against its primitives, each measured alone in this run",
        );
        let opened = microseconds(calls, &mut || {
            black_box(verify(&envelope, &acceptance)?.open(&envelope, &opening)?);
            Ok(())
        });
        row(
            &format!("open/{name}{suffix}"),
            opened,
            Some(common + decapsulating + decrypting + verifying_both),
            7 * calls,
            "verified strictly, then opened; against its primitives, each measured alone in this run",
        );
        if size == 1024 {
            let many = Outgoing { to: &to, ..message };
            let (all, spread) = microseconds(calls / 4, &mut || {
                black_box(seal(&many, &signing)?);
                Ok(())
            });
            row(
                "seal/32-recipients/each",
                ((all - one.0) / 31.0, spread),
                None,
                7 * calls / 4,
                "what each recipient after the first adds to a message of 1 KiB",
            );
        }
    }
    Ok(())
}
