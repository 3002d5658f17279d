//! What is tried against an envelope, and must fail; each attack is first shown to be well formed, so that it fails for the right reason.

use crate::trial::{NOW, World};
use crate::{Acceptance, Outgoing, Priority, seal, verify};
use creto_crypto::{SigningKey, Suite};
use creto_enablement_common::ErrorKind;
use creto_nhi::Directory;

#[test]
fn a_message_opens_for_each_of_its_recipients_and_nobody_else() {
    for suite in Suite::ALL {
        let world = World::new(*suite, 4);
        let envelope = world.seal(0, &[1, 2], b"hello");
        assert_eq!(world.open(1, &envelope).unwrap(), b"hello");
        assert_eq!(world.open(2, &envelope).unwrap(), b"hello");
        assert!(world.open(3, &envelope).is_err());
        let empty = world.seal(0, &[1], b"");
        assert_eq!(world.open(1, &empty).unwrap(), b"");
        let header = verify(&envelope, &world.acceptance(1)).unwrap().header().clone();
        assert_eq!((header.from, header.to.len(), header.message_id), (world.agents[0].id.clone(), 2, [7; 16]));
    }
}

#[test]
fn a_message_to_many_opens_for_the_first_and_the_last_of_them() {
    let world = World::new(Suite::Standard, 12);
    let all: Vec<usize> = (1..12).collect();
    let envelope = world.seal(0, &all, b"to all of you");
    for reader in all {
        assert_eq!(world.open(reader, &envelope).unwrap(), b"to all of you");
    }
}

#[test]
fn every_single_flipped_bit_of_every_field_and_every_cut_is_refused() {
    every_bit_and_cut_of(Suite::Standard);
}

#[test]
fn every_single_flipped_bit_of_every_field_and_every_cut_is_refused_in_the_stronger_suite() {
    every_bit_and_cut_of(Suite::Cnsa2);
}

fn every_bit_and_cut_of(suite: Suite) {
    let world = World::new(suite, 3);
    // Every header field that there is, and two recipients.
    let message = Outgoing {
        from: &world.agents[0].id,
        to: &world.to(&[1, 2]),
        message_id: [7; 16],
        date: NOW,
        expires: NOW + 60,
        content_type: "text/plain",
        in_reply_to: Some([8; 16]),
        priority: Priority::Urgent,
        chain: Some([9; 32]),
        body: b"hello",
    };
    let envelope = seal(&message, &world.agents[0].signing).unwrap();
    assert_eq!(world.open(1, &envelope).unwrap(), b"hello");
    let mut bad = envelope.clone();
    for bit in 0..envelope.len() * 8 {
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(world.open(1, &bad).is_err(), "bit {bit} of suite {suite}");
        bad[bit / 8] ^= 1 << (bit % 8);
    }
    for length in 0..envelope.len() {
        assert!(world.open(1, &envelope[..length]).is_err(), "the first {length} bytes of suite {suite}");
    }
    assert!(world.open(1, &[envelope.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn a_known_writer_who_signs_anothers_name_is_refused_with_the_one_answer() {
    let world = World::new(Suite::Standard, 3);
    // Author theft: a1 signs a message that says it is from a0.
    let stolen = world.seal_as(0, 1, &[2], b"mine");
    // Surreptitious forwarding: a1 hands what a0 wrote to it on to a2.
    let forwarded = world.seal(0, &[1], b"to a1 alone");
    let mut texts: Vec<String> = vec![];
    for envelope in [&stolen, &forwarded] {
        let error = world.open(2, envelope).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::EncryptionFailed));
        texts.push(error.to_string());
    }
    // The wrong key of the right recipient, and a late message, answer the same bytes.
    let verified_envelope = world.seal(0, &[2], b"x");
    let acceptance = world.acceptance(2);
    texts.push(
        verify(&verified_envelope, &acceptance).unwrap().open(&verified_envelope, &[world.agents[1].kem.clone()]).unwrap_err().to_string(),
    );
    for acceptance in
        [Acceptance { now: NOW + 60, ..acceptance }, Acceptance { now: NOW - 61, ..acceptance }, Acceptance { max_life: 59, ..acceptance }]
    {
        texts.push(verify(&verified_envelope, &acceptance).unwrap_err().to_string());
    }
    texts.dedup();
    assert_eq!(texts, ["the message cannot be opened by this recipient: sealing or opening failed"]);
}

#[test]
fn an_unknown_writer_is_named_with_what_to_do() {
    let world = World::new(Suite::Standard, 2);
    let envelope = world.seal(0, &[1], b"hello");
    let nobody = Directory::default();
    let error = verify(&envelope, &Acceptance { directory: &nobody, ..world.acceptance(1) }).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotFound));
    assert!(error.to_string().contains("spiffe://creto.test/agent/a0") && error.to_string().contains("creto agent import"), "{error}");
}

#[test]
fn a_message_of_another_suite_is_refused_however_well_it_is_signed() {
    let world = World::new(Suite::Standard, 2);
    let envelope = world.seal(0, &[1], b"hello");
    let error = verify(&envelope, &Acceptance { suite: Suite::Cnsa2, ..world.acceptance(1) }).unwrap_err();
    assert!(!matches!(error.kind(), ErrorKind::EncryptionFailed), "{error}");
}

#[test]
fn a_length_of_a_gigabyte_is_refused_before_anything_is_allocated() {
    let world = World::new(Suite::Standard, 2);
    let mut envelope = world.seal(0, &[1], b"hello");
    envelope.splice(1..4, [0x84, 0x40, 0, 0, 0]);
    assert!(world.open(1, &envelope).is_err());
    let error = verify(&[0x30; 101], &Acceptance { max_bytes: 100, ..world.acceptance(1) }).unwrap_err();
    assert!(error.to_string().contains("101 bytes"), "{error}");
}

#[test]
fn what_could_not_be_opened_is_not_sealed() {
    let world = World::new(Suite::Standard, 2);
    let stranger = SigningKey::generate(Suite::Cnsa2).unwrap();
    let to = world.to(&[1]);
    let message = Outgoing {
        from: &world.agents[0].id,
        to: &to,
        message_id: [1; 16],
        date: NOW,
        expires: NOW + 60,
        content_type: "text/plain",
        in_reply_to: None,
        priority: Priority::Normal,
        chain: None,
        body: b"",
    };
    let key = &world.agents[0].signing;
    assert!(seal(&message, &stranger).unwrap_err().to_string().contains("suite `cnsa2`"));
    assert!(seal(&Outgoing { to: &[], ..message }, key).is_err());
    assert!(seal(&Outgoing { to: &[to.clone(), to.clone()].concat(), ..message }, key).unwrap_err().to_string().contains("one key"));
    assert!(seal(&Outgoing { expires: NOW, ..message }, key).is_err());
    assert!(seal(&Outgoing { content_type: "a\r\nTo: b", ..message }, key).unwrap_err().to_string().contains("control"));
    assert!(seal(&Outgoing { content_type: &"x".repeat(257), ..message }, key).is_err());
}

mod mangled {
    use super::*;
    use proptest::prelude::*;
    use std::sync::OnceLock;

    fn world() -> &'static (World, Vec<u8>) {
        static MADE: OnceLock<(World, Vec<u8>)> = OnceLock::new();
        MADE.get_or_init(|| {
            let world = World::new(Suite::Standard, 2);
            let envelope = world.seal(0, &[1], b"hello");
            (world, envelope)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_envelope_cut_and_pasted_is_refused_and_never_a_panic(
            from in 0usize..6000, length in 0usize..200, at in 0usize..6000, replace in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let (world, envelope) = world();
            let (from, at) = (from % envelope.len(), at % envelope.len());
            let piece = [&envelope[from..(from + length).min(envelope.len())], &bytes].concat();
            let end = if replace { (at + piece.len()).min(envelope.len()) } else { at };
            let mut bad = envelope.clone();
            bad.splice(at..end, piece);
            prop_assume!(bad != *envelope);
            prop_assert!(world.open(1, &bad).is_err());
        }

        #[test]
        fn bytes_that_were_never_an_envelope_are_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (world, _) = world();
            prop_assert!(world.open(1, &bytes).is_err());
        }
    }
}
