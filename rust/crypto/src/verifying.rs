//! The public half of a signing key set.

use crate::spki::{self, KeyAlgorithm, KeyId};
use crate::{Algorithm, Error, Provider, Signature, Suite, Verifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;

/// The public keys of one suite, one for each of its algorithms; cheap to clone.
#[derive(Clone)]
pub struct VerifyingKey(Arc<Inner>);

struct Inner {
    suite: Suite,
    parts: Vec<Part>,
    encoded: Vec<u8>,
    fingerprint: String,
}

struct Part {
    algorithm: Algorithm,
    public: Vec<u8>,
    id: KeyId,
    label: String,
    verifier: Box<dyn Verifier>,
}

impl VerifyingKey {
    /// From one public key for each algorithm of the suite, in its order.
    pub fn from_parts(suite: Suite, publics: &[&[u8]]) -> Result<Self, Error> {
        Self::with_provider(Provider::chosen(), suite, publics)
    }

    /// The same, with a provider of choice.
    pub fn with_provider(provider: &Provider, suite: Suite, publics: &[&[u8]]) -> Result<Self, Error> {
        if publics.len() != suite.signers().len() {
            return Err(Error::Malformed(format!("{} public keys where suite `{suite}` has {}", publics.len(), suite.signers().len())));
        }
        let mut parts = Vec::with_capacity(publics.len());
        let mut infos = Vec::new();
        for (algorithm, public) in suite.signers().iter().copied().zip(publics) {
            let verifier = provider.signing.verifier(algorithm, public)?;
            infos.extend(spki::encode(KeyAlgorithm::Signing(algorithm), public)?);
            let id = KeyId::of(public);
            parts.push(Part { algorithm, public: public.to_vec(), id, label: format!("{algorithm}:{}", id.hex()), verifier });
        }
        let encoded = der::Encode::to_der(&der::AnyRef::new(der::Tag::Sequence, &infos).map_err(too_long)?).map_err(too_long)?;
        let fingerprint = base16ct::lower::encode_string(&Provider::chosen().sha256(&[&encoded]));
        Ok(Self(Arc::new(Inner { suite, parts, encoded, fingerprint })))
    }

    /// Reads what `to_bytes` wrote; the algorithms in it decide the suite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        use der::{Decode as _, Reader as _, Tagged as _};
        let sequence = der::AnyRef::from_der(bytes).map_err(unreadable)?;
        if sequence.tag() != der::Tag::Sequence {
            return Err(unreadable("not a SEQUENCE"));
        }
        let mut reader = der::SliceReader::new(sequence.value()).map_err(unreadable)?;
        let mut found = Vec::new();
        while !reader.is_finished() {
            match spki::decode(reader.tlv_bytes().map_err(unreadable)?)? {
                (KeyAlgorithm::Signing(algorithm), public) => found.push((algorithm, public)),
                (KeyAlgorithm::Kem(_), _) => return Err(unreadable("a key that encapsulates does not verify")),
            }
        }
        let suite = Suite::ALL
            .iter()
            .copied()
            .find(|suite| suite.signers().iter().eq(found.iter().map(|(algorithm, _)| algorithm)))
            .ok_or_else(|| unreadable("its algorithms are not those of a suite, in order"))?;
        Self::from_parts(suite, &found.iter().map(|(_, public)| *public).collect::<Vec<_>>())
    }

    /// DER: a SEQUENCE of one SubjectPublicKeyInfo for each algorithm, in the suite's order.
    pub fn to_bytes(&self) -> &[u8] {
        &self.0.encoded
    }

    /// `to_bytes` in base64, for configuration files and JSON.
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.to_bytes())
    }

    /// Reads what `to_text` wrote.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        Self::from_bytes(&STANDARD.decode(text).map_err(unreadable)?)
    }

    /// Which suite these keys belong to.
    pub fn suite(&self) -> Suite {
        self.0.suite
    }

    /// The public key for one algorithm, in the algorithm's own encoding.
    pub fn public(&self, algorithm: Algorithm) -> Option<&[u8]> {
        self.part(algorithm).map(|part| part.public.as_slice())
    }

    /// The identifier of the key for one algorithm.
    pub fn key_id(&self, algorithm: Algorithm) -> Option<KeyId> {
        self.part(algorithm).map(|part| part.id)
    }

    /// The identifiers of all keys, in the suite's order.
    pub fn key_ids(&self) -> impl Iterator<Item = (Algorithm, KeyId)> + '_ {
        self.0.parts.iter().map(|part| (part.algorithm, part.id))
    }

    /// The identifier of the whole set: SHA-256 over its DER, in hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    /// `<algorithm>:<hexadecimal key id>` of each key, in the suite's order: what names them in signed statements.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.parts.iter().map(|part| part.label.as_str())
    }

    /// Verifies that every algorithm of the suite has signed, in the suite's order, and nothing else has.
    pub fn verify(&self, message: &[u8], signatures: &[Signature]) -> Result<(), Error> {
        let exact = self.0.parts.iter().map(|part| part.algorithm).eq(signatures.iter().map(|signature| signature.algorithm));
        // Every one is checked even after one has failed, so that the time tells nothing about which.
        let valid = self
            .0
            .parts
            .iter()
            .zip(signatures)
            .fold(exact, |valid, (part, signature)| part.verifier.verify(message, &signature.bytes) & valid);
        if valid { Ok(()) } else { Err(Error::Signature) }
    }

    /// The same for signatures that a format lists in the suite's order: one for each algorithm, all valid.
    pub fn verify_all<'a>(&self, message: &[u8], signatures: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<(), Error> {
        let exact = signatures.len() == self.0.parts.len();
        let valid = self.0.parts.iter().zip(signatures).fold(exact, |valid, (part, made)| part.verifier.verify(message, made) & valid);
        if valid { Ok(()) } else { Err(Error::Signature) }
    }

    /// Verifies one algorithm's signature alone: for formats that carry them apart. Both are to be asked for before anything is believed.
    pub fn verify_with(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        match self.part(algorithm) {
            Some(part) if part.verifier.verify(message, signature) => Ok(()),
            _ => Err(Error::Signature),
        }
    }

    fn part(&self, algorithm: Algorithm) -> Option<&Part> {
        self.0.parts.iter().find(|part| part.algorithm == algorithm)
    }
}

fn unreadable(error: impl core::fmt::Display) -> Error {
    Error::Malformed(format!("not a set of verifying keys: {error}"))
}

fn too_long(error: der::Error) -> Error {
    Error::Malformed(format!("the keys cannot be encoded: {error}"))
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for VerifyingKey {}

impl core::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "VerifyingKey({}, {})", self.suite(), self.fingerprint().get(..16).unwrap_or_default())
    }
}
