//! Signed statements: DSSE envelopes (secure-systems-lab/dsse, version 1.0.2) with one signature for each algorithm of a suite.
//!
//! What is signed is DSSE's pre-authentication encoding, so an outsider checks an envelope with a JSON reader and any library that
//! verifies Ed25519 and ML-DSA.

use crate::{Error, SigningKey, VerifyingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The payload type of an in-toto Statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// An envelope as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The media type of the payload.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The payload, in base64.
    pub payload: String,
    /// The signatures, in the suite's order.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// `<algorithm>:<hexadecimal key id>`.
    pub keyid: String,
    /// The signature, in base64.
    pub sig: String,
}

/// DSSE's pre-authentication encoding.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoded = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    encoded.extend_from_slice(payload);
    encoded
}

/// Signs a payload and returns the envelope as JSON.
pub fn sign(key: &SigningKey, payload_type: &str, payload: &[u8]) -> Result<String, Error> {
    let signatures = key
        .sign(&pre_authentication_encoding(payload_type, payload))?
        .into_iter()
        .zip(key.verifying_key().labels())
        .map(|(signature, label)| EnvelopeSignature { keyid: label.to_owned(), sig: STANDARD.encode(signature.bytes) })
        .collect();
    let envelope = Envelope { payload_type: payload_type.to_owned(), payload: STANDARD.encode(payload), signatures };
    serde_json::to_string(&envelope).map_err(|error| Error::Malformed(error.to_string()))
}

/// Verifies an envelope under exactly these keys and returns its payload; a signature stripped, added, doubled or reordered is refused.
pub fn verify(key: &VerifyingKey, payload_type: &str, envelope: &str) -> Result<Vec<u8>, Error> {
    let parsed = Unverified::parse(payload_type, envelope)?;
    parsed.verify(key)?;
    Ok(parsed.payload)
}

/// The payload of an envelope whose signer is not known yet: only to find out whose keys to verify it with.
pub fn unverified_payload(envelope: &str) -> Result<Vec<u8>, Error> {
    let envelope: Envelope = serde_json::from_str(envelope).map_err(unreadable)?;
    STANDARD.decode(&envelope.payload).map_err(unreadable)
}

/// An envelope that was read, and is believed by nobody yet.
#[derive(Debug)]
pub struct Unverified {
    /// What it holds: only to find out whose keys to verify it with.
    pub payload: Vec<u8>,
    signed: Vec<u8>,
    key_ids: Vec<String>,
    signatures: Vec<Vec<u8>>,
}

fn unreadable(error: impl core::fmt::Display) -> Error {
    Error::Malformed(format!("not a DSSE envelope: {error}"))
}

impl Unverified {
    /// Reads an envelope that must hold this type of payload.
    pub fn parse(payload_type: &str, envelope: &str) -> Result<Self, Error> {
        let envelope: Envelope = serde_json::from_str(envelope).map_err(unreadable)?;
        if envelope.payload_type != payload_type {
            return Err(Error::Malformed(format!("the envelope holds `{}` where `{payload_type}` is wanted", envelope.payload_type)));
        }
        let payload = STANDARD.decode(&envelope.payload).map_err(unreadable)?;
        let signed = pre_authentication_encoding(payload_type, &payload);
        let signatures =
            envelope.signatures.iter().map(|made| STANDARD.decode(&made.sig).map_err(unreadable)).collect::<Result<Vec<_>, _>>()?;
        let key_ids = envelope.signatures.into_iter().map(|made| made.keyid).collect();
        Ok(Self { payload, signed, key_ids, signatures })
    }

    /// Verifies that exactly these keys have signed it, each once and in the suite's order.
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), Error> {
        if !key.labels().eq(self.key_ids.iter().map(String::as_str)) {
            return Err(Error::Signature);
        }
        key.verify_all(&self.signed, self.signatures.iter().map(Vec::as_slice))
    }
}
