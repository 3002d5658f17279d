//! Envelopes that were sealed once and must open for ever: `vectors/<suite>.der`, made from the seeds below.
//!
//! Where the format changes on purpose, `CRETO_WRITE_VECTORS=1 cargo test -p creto-messaging golden` makes them anew.

use crate::{Acceptance, Outgoing, Priority, seal, verify};
use creto_crypto::{KemKey, Provider, RUSTCRYPTO, Secret, SigningKey, Suite};
use creto_enablement_common::AgentId;
use creto_nhi::{Authority, Directory};
use std::path::PathBuf;
use std::sync::Arc;

const NOW: u64 = 1_790_000_000;
const BODY: &[u8] = b"sealed once, to be opened for ever";

fn secret<const N: usize>(byte: u8) -> Secret<N> {
    Secret::copy_from(&[byte; N]).unwrap()
}

fn keys(provider: &Provider, suite: Suite) -> (SigningKey, KemKey) {
    let seeds = suite.signers().iter().zip(1..).map(|(_, byte)| secret(byte)).collect();
    (SigningKey::from_seeds(provider, suite, seeds).unwrap(), KemKey::from_seed(provider, suite.kem(), secret(9)).unwrap())
}

#[test]
fn the_golden_envelopes_open_under_both_providers() {
    for suite in Suite::ALL {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("vectors/{suite}.der"));
        let (writer, reader) = (AgentId::agent("creto.test", "writer").unwrap(), AgentId::agent("creto.test", "reader").unwrap());
        for provider in [Provider::chosen(), &RUSTCRYPTO] {
            let (signing, kem) = keys(provider, *suite);
            let authority = Authority::generate("creto.test", *suite, NOW, 1_000_000).unwrap();
            let directory = Directory::default();
            let statement = authority.issue(&writer, signing.verifying_key(), kem.public_key(), NOW, 500_000).unwrap();
            directory.add(Arc::new(authority.domain().admit(&statement).unwrap()));
            if std::env::var_os("CRETO_WRITE_VECTORS").is_some() {
                let message = Outgoing {
                    from: &writer,
                    to: &[(reader.clone(), kem.public_key().clone())],
                    message_id: [0xab; 16],
                    date: NOW,
                    expires: NOW + 60,
                    content_type: "text/plain",
                    in_reply_to: Some([0xcd; 16]),
                    priority: Priority::Urgent,
                    chain: Some([0xef; 32]),
                    body: BODY,
                };
                std::fs::write(&file, seal(&message, &signing).unwrap()).unwrap();
            }
            let envelope = std::fs::read(&file).unwrap();
            let acceptance =
                Acceptance { me: &reader, directory: &directory, suite: *suite, max_bytes: 1 << 20, max_life: 300, now: NOW + 1 };
            let verified = verify(&envelope, &acceptance).unwrap();
            assert_eq!((verified.header().priority, verified.header().chain), (Priority::Urgent, Some([0xef; 32])));
            assert_eq!(verified.open(&envelope, &[kem]).unwrap(), BODY);
        }
    }
}
