//! Sealing: encrypt once, wrap the key for each recipient, sign.

use crate::header::{Header, Priority};
use crate::oid;
use crate::profile::{DIGEST, NONCE, Profile, TAG, attribute};
use creto_crypto::asn1::{self, element_len};
use creto_crypto::{Hash, KemPublicKey, Provider, Secret, SigningKey};
use creto_enablement_common::{AgentId, Error, ErrorKind, Result};
use std::num::NonZero;
use std::sync::LazyLock;
use std::thread;

/// A message that is to be sealed.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Who writes.
    pub from: &'a AgentId,
    /// Whom for, each with its key.
    pub to: &'a [(AgentId, KemPublicKey)],
    /// Fresh and random.
    pub message_id: [u8; 16],
    /// Seconds since the epoch.
    pub date: u64,
    /// Seconds since the epoch.
    pub expires: u64,
    /// The media type of the content.
    pub content_type: &'a str,
    /// The message that it answers.
    pub in_reply_to: Option<[u8; 16]>,
    /// How soon it wants to be read.
    pub priority: Priority,
    /// Digest of the delegation chain that its writer acts under.
    pub chain: Option<[u8; 32]>,
    /// The content.
    pub body: &'a [u8],
}

fn failed(error: creto_crypto::Error) -> Error {
    Error::new(ErrorKind::EncryptionFailed).with_source(error)
}

/// Seals a message under the writer's keys and returns the envelope.
pub fn seal(message: &Outgoing<'_>, key: &SigningKey) -> Result<Vec<u8>> {
    let provider = Provider::chosen();
    let profile = Profile::of(key.suite())?;
    if let Some((id, _)) = message.to.iter().find(|(_, kem)| kem.algorithm() != key.suite().kem()) {
        return Err(Error::invalid(format!("`{id}` has no key of suite `{}`, which `{}` writes in", key.suite(), message.from)));
    }
    let cek = Secret::<32>::random(provider).map_err(failed)?;
    let nonce: [u8; NONCE] = provider.nonce().map_err(failed)?;
    let header = Header {
        from: message.from.clone(),
        to: message.to.iter().map(|(id, _)| id.clone()).collect(),
        message_id: message.message_id,
        date: message.date,
        expires: message.expires,
        content_type: message.content_type.to_owned(),
        in_reply_to: message.in_reply_to,
        priority: message.priority,
        suite: key.suite(),
        chain: message.chain,
        commitment: profile.commitment(&cek, &nonce).map_err(failed)?,
    };
    let header = header.encode()?;

    // A SET OF is sorted; recipients differ first in their key identifiers.
    let mut recipients: Vec<&KemPublicKey> = message.to.iter().map(|(_, kem)| kem).collect();
    recipients.sort_by_key(|kem| kem.id());
    if recipients.windows(2).any(|pair| matches!(pair, [a, b] if a.id() == b.id())) {
        return Err(Error::invalid("two recipients of the message have one key; name each recipient once"));
    }

    // Every length is known before the first byte is written, so that the body is copied once and encrypted where it lies.
    let mut attributes = Vec::with_capacity(header.len() + 32);
    attribute(&mut attributes, oid::SECURE_HEADER_FIELDS, |out| out.extend_from_slice(&header));
    let content_algorithm = Profile::content_algorithm(&nonce);
    let recipients_len = recipients.len() * profile.recipient_len();
    let encrypted_len = element_len(oid::DATA.as_bytes().len()) + content_algorithm.len() + element_len(message.body.len());
    let enveloped_len = 3 + element_len(recipients_len) + element_len(encrypted_len) + element_len(attributes.len()) + element_len(TAG);
    let inner_len = element_len(oid::AUTH_ENVELOPED_DATA.as_bytes().len()) + element_len(element_len(enveloped_len));
    let content_len = element_len(inner_len);
    let wrapped_content_len = element_len(oid::CONTENT_INFO.as_bytes().len()) + element_len(element_len(content_len));
    // The digest is known last, and is what they end with.
    let mut signed_attributes = Profile::signed_attributes(message.date, &[0; DIGEST])?;
    let attributes_len = signed_attributes.len();
    let signer_len = |algorithm: &(creto_crypto::Algorithm, Vec<u8>)| {
        3 + 22 + profile.digest.len() + element_len(attributes_len) + algorithm.1.len() + element_len(algorithm.0.signature_len())
    };
    let signers_len: usize = profile.signers.iter().map(|signer| element_len(signer_len(signer))).sum();
    let signed_len = 3 + element_len(profile.digest.len()) + element_len(wrapped_content_len) + element_len(signers_len);
    let outer_len = element_len(oid::SIGNED_DATA.as_bytes().len()) + element_len(element_len(signed_len));

    let mut out = Vec::with_capacity(element_len(outer_len));
    asn1::put_header(&mut out, asn1::SEQUENCE, outer_len);
    asn1::put_oid(&mut out, oid::SIGNED_DATA);
    asn1::put_header(&mut out, asn1::explicit(0), element_len(signed_len));
    asn1::put_header(&mut out, asn1::SEQUENCE, signed_len);
    asn1::put(&mut out, asn1::INTEGER, &[3]);
    asn1::put(&mut out, asn1::SET, &profile.digest);
    asn1::put_header(&mut out, asn1::SEQUENCE, wrapped_content_len);
    asn1::put_oid(&mut out, oid::CONTENT_INFO);
    asn1::put_header(&mut out, asn1::explicit(0), element_len(content_len));
    asn1::put_header(&mut out, asn1::OCTET_STRING, content_len);

    let content_start = out.len();
    asn1::put_header(&mut out, asn1::SEQUENCE, inner_len);
    asn1::put_oid(&mut out, oid::AUTH_ENVELOPED_DATA);
    asn1::put_header(&mut out, asn1::explicit(0), element_len(enveloped_len));
    asn1::put_header(&mut out, asn1::SEQUENCE, enveloped_len);
    asn1::put(&mut out, asn1::INTEGER, &[0]);
    asn1::put_header(&mut out, asn1::SET, recipients_len);
    put_recipients(&mut out, profile, &recipients, &cek)?;
    asn1::put_header(&mut out, asn1::SEQUENCE, encrypted_len);
    asn1::put_oid(&mut out, oid::DATA);
    out.extend_from_slice(&content_algorithm);
    asn1::put_header(&mut out, asn1::implicit(0), message.body.len());
    let body_start = out.len();
    out.extend_from_slice(message.body);
    let mut associated = Vec::with_capacity(element_len(attributes.len()));
    asn1::put(&mut associated, asn1::SET, &attributes);
    let tag = provider.symmetric.seal(&cek, &nonce, &associated, out.get_mut(body_start..).unwrap_or_default()).map_err(failed)?;
    asn1::put(&mut out, asn1::explicit(1), &attributes);
    asn1::put(&mut out, asn1::OCTET_STRING, &tag);

    let digest = provider.derivation.digest(Hash::Sha512, &[out.get(content_start..).unwrap_or_default()]);
    *signed_attributes.last_chunk_mut().ok_or_else(|| Error::internal("signed attributes without room for their digest"))? = digest;
    let mut to_sign = Vec::with_capacity(element_len(attributes_len));
    asn1::put(&mut to_sign, asn1::SET, &signed_attributes);
    asn1::put_header(&mut out, asn1::SET, signers_len);
    for signer in &profile.signers {
        let (algorithm, identifier) = signer;
        let key_id = key.verifying_key().key_id(*algorithm).ok_or_else(|| failed(creto_crypto::Error::Signature))?;
        asn1::put_header(&mut out, asn1::SEQUENCE, signer_len(signer));
        asn1::put(&mut out, asn1::INTEGER, &[3]);
        asn1::put(&mut out, asn1::implicit(0), &key_id.0);
        out.extend_from_slice(&profile.digest);
        asn1::put(&mut out, asn1::explicit(0), &signed_attributes);
        out.extend_from_slice(identifier);
        asn1::put_header(&mut out, asn1::OCTET_STRING, algorithm.signature_len());
        key.sign_with(*algorithm, &to_sign, &mut out).map_err(failed)?;
    }
    if out.len() == element_len(outer_len) {
        Ok(out)
    } else {
        Err(Error::internal("an envelope came out with another length than was reckoned"))
    }
}

/// Appends one RecipientInfo for each; from a few on, half of them are made by a second thread.
fn put_recipients(out: &mut Vec<u8>, profile: &Profile, recipients: &[&KemPublicKey], cek: &Secret<32>) -> Result<()> {
    // To start and end a thread takes as long as two recipients.
    const WORTH_A_THREAD: usize = 8;
    static PROCESSORS: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, NonZero::get));

    if recipients.len() < WORTH_A_THREAD || *PROCESSORS < 2 {
        return put_each(out, profile, recipients, cek);
    }
    let (first, second) = recipients.split_at(recipients.len().div_ceil(2));
    thread::scope(|scope| {
        let other = thread::Builder::new().spawn_scoped(scope, || {
            let mut part = Vec::with_capacity(second.len() * profile.recipient_len());
            put_each(&mut part, profile, second, cek).map(|()| part)
        });
        put_each(out, profile, first, cek)?;
        match other {
            Ok(other) => out.extend(other.join().map_err(|_| Error::internal("a thread that wrapped keys did not end well"))??),
            // No thread to be had: it takes longer, and that is all.
            Err(_) => put_each(out, profile, second, cek)?,
        }
        Ok(())
    })
}

fn put_each(out: &mut Vec<u8>, profile: &Profile, recipients: &[&KemPublicKey], cek: &Secret<32>) -> Result<()> {
    for recipient in recipients {
        profile.put_recipient_head(out, &recipient.id().0);
        let shared = recipient.encapsulate_into(out).map_err(failed)?;
        let wrapped = Provider::chosen().symmetric.wrap(&profile.kek(&shared).map_err(failed)?, cek).map_err(failed)?;
        profile.put_recipient_tail(out, &wrapped);
    }
    Ok(())
}
