//! What other agents send: envelopes, their headers, attachments.

use crate::world::WORLD;
use creto_crypto::{Secret, Suite};
use creto_messaging::{Header, open_attachment, unverified_header, verify};

pub fn envelope(bytes: &[u8]) {
    for suite in Suite::ALL {
        let _ = unverified_header(bytes, *suite);
    }
    let world = &*WORLD;
    if let Ok(verified) = verify(bytes, &world.acceptance()) {
        assert!(world.agents.iter().any(|agent| agent.id == verified.sender().id));
        let _ = verified.open(bytes, &[world.agent(2).kem.clone()]);
    }
}

pub fn header(bytes: &[u8]) {
    if let Ok(header) = Header::decode(bytes) {
        let again = header.encode().expect("what was read is written");
        assert_eq!(again, bytes, "a header has one encoding");
    }
}

pub fn attachment(bytes: &[u8]) {
    if let Ok(key) = Secret::copy_from(&[5; 32]) {
        let _ = open_attachment(&key, bytes);
    }
}
