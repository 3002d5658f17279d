//! Signed statements: DSSE envelopes (secure-systems-lab/dsse, version 1.0.2) with one signature for each algorithm of a suite.
//!
//! What is signed is DSSE's pre-authentication encoding, so an outsider checks an envelope with a JSON reader and any library that
//! verifies Ed25519 and ML-DSA.

use crate::{Error, SigningKey, VerifyingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The payload type of an in-toto Statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// An envelope as it is written; read, it borrows its text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(rename = "payloadType", borrow)]
    payload_type: Cow<'a, str>,
    #[serde(borrow)]
    payload: Cow<'a, str>,
    /// In the suite's order.
    #[serde(borrow)]
    signatures: Vec<EnvelopeSignature<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature<'a> {
    /// `<algorithm>:<hexadecimal key id>`.
    #[serde(borrow)]
    keyid: Cow<'a, str>,
    #[serde(borrow)]
    sig: Cow<'a, str>,
}

/// DSSE's pre-authentication encoding.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoded = preamble(payload_type, payload.len());
    encoded.extend_from_slice(payload);
    encoded
}

/// All of the pre-authentication encoding but the payload, with room for that.
fn preamble(payload_type: &str, payload: usize) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoded = Vec::with_capacity(32 + payload_type.len() + payload);
    // Writing to a Vec cannot fail.
    let _ = write!(encoded, "DSSEv1 {} {payload_type} {payload} ", payload_type.len());
    encoded
}

/// Signs a payload and returns the envelope as JSON.
pub fn sign(key: &SigningKey, payload_type: &str, payload: &[u8]) -> Result<String, Error> {
    let signatures = key
        .sign(&pre_authentication_encoding(payload_type, payload))?
        .into_iter()
        .zip(key.verifying_key().labels())
        .map(|(signature, label)| EnvelopeSignature { keyid: label.into(), sig: STANDARD.encode(signature.bytes).into() })
        .collect();
    let envelope = Envelope { payload_type: payload_type.into(), payload: STANDARD.encode(payload).into(), signatures };
    serde_json::to_string(&envelope).map_err(|error| Error::Malformed(error.to_string()))
}

/// Verifies an envelope under exactly these keys and returns its payload; a signature stripped, added, doubled or reordered is refused.
pub fn verify(key: &VerifyingKey, payload_type: &str, envelope: &str) -> Result<Vec<u8>, Error> {
    let parsed = Unverified::parse(payload_type, envelope)?;
    parsed.verify(key)?;
    Ok(parsed.payload().to_vec())
}

/// The payload of an envelope whose signer is not known yet: only to find out whose keys to verify it with.
pub fn unverified_payload(envelope: &str) -> Result<Vec<u8>, Error> {
    let envelope: Envelope<'_> = serde_json::from_str(envelope).map_err(unreadable)?;
    STANDARD.decode(&*envelope.payload).map_err(unreadable)
}

/// An envelope that was read, and is believed by nobody yet.
pub struct Unverified<'a> {
    /// What is signed, which ends with the payload.
    signed: Vec<u8>,
    payload_at: usize,
    signatures: Vec<(Cow<'a, str>, Vec<u8>)>,
}

impl core::fmt::Debug for Unverified<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Unverified({} bytes, {} signatures)", self.payload().len(), self.signatures.len())
    }
}

fn unreadable(error: impl core::fmt::Display) -> Error {
    Error::Malformed(format!("not a DSSE envelope: {error}"))
}

impl<'a> Unverified<'a> {
    /// Reads an envelope that must hold this type of payload.
    pub fn parse(payload_type: &str, envelope: &'a str) -> Result<Self, Error> {
        let envelope: Envelope<'a> = serde_json::from_str(envelope).map_err(unreadable)?;
        if envelope.payload_type != payload_type {
            return Err(Error::Malformed(format!("the envelope holds `{}` where `{payload_type}` is wanted", envelope.payload_type)));
        }
        // Decoded once, to where it stands in what is signed; its length is known from its text.
        let padding = envelope.payload.bytes().rev().take_while(|&byte| byte == b'=').count();
        let length = (envelope.payload.len() / 4 * 3).saturating_sub(padding);
        let mut signed = preamble(payload_type, length);
        let payload_at = signed.len();
        STANDARD.decode_vec(&*envelope.payload, &mut signed).map_err(unreadable)?;
        if signed.len() != payload_at + length {
            return Err(unreadable("its payload has another length than its text"));
        }
        let signatures = envelope
            .signatures
            .into_iter()
            .map(|made| Ok((made.keyid, STANDARD.decode(&*made.sig).map_err(unreadable)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Self { signed, payload_at, signatures })
    }

    /// What it holds: only to find out whose keys to verify it with.
    pub fn payload(&self) -> &[u8] {
        self.signed.get(self.payload_at..).unwrap_or_default()
    }

    /// Whether it says that exactly these keys have signed it, each once and in the suite's order; cheap, and no proof.
    pub fn names(&self, key: &VerifyingKey) -> bool {
        key.labels().eq(self.signatures.iter().map(|(id, _)| &**id))
    }

    /// Verifies that exactly these keys have signed it, each once and in the suite's order.
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), Error> {
        if !self.names(key) {
            return Err(Error::Signature);
        }
        key.verify_all(&self.signed, self.signatures.iter().map(|(_, made)| made.as_slice()))
    }
}
