//! Public keys as SubjectPublicKeyInfo (RFC 5280, RFC 8410, RFC 9881, RFC 9935), and the identifiers made from them.

use crate::{Algorithm, Error, KemAlgorithm, Provider};
use der::asn1::{BitStringRef, ObjectIdentifier};
use der::{Decode as _, Encode as _};
use spki::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// What names a key wherever keys are looked up: the first 20 bytes of SHA-256 of the subjectPublicKey bits (RFC 7093, method 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 20]);

impl KeyId {
    /// The id of a public key in its algorithm's own encoding.
    pub fn of(public: &[u8]) -> Self {
        let digest = Provider::chosen().sha256(&[public]);
        let mut id = [0; 20];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(id)
    }

    /// In lower-case hexadecimal.
    pub fn hex(&self) -> String {
        base16ct::lower::encode_string(&self.0)
    }
}

/// What a public key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// Signatures.
    Signing(Algorithm),
    /// Key encapsulation.
    Kem(KemAlgorithm),
}

impl KeyAlgorithm {
    const ALL: [Self; 5] = [
        Self::Signing(Algorithm::Ed25519),
        Self::Signing(Algorithm::MlDsa65),
        Self::Signing(Algorithm::MlDsa87),
        Self::Kem(KemAlgorithm::MlKem768),
        Self::Kem(KemAlgorithm::MlKem1024),
    ];

    /// The object identifier, dotted.
    pub const fn oid(self) -> &'static str {
        match self {
            Self::Signing(algorithm) => algorithm.oid(),
            Self::Kem(algorithm) => algorithm.oid(),
        }
    }

    const fn public_len(self) -> usize {
        match self {
            Self::Signing(algorithm) => algorithm.public_len(),
            Self::Kem(algorithm) => algorithm.public_len(),
        }
    }
}

fn unreadable(error: impl core::fmt::Display) -> Error {
    Error::Malformed(format!("the public key is not a DER SubjectPublicKeyInfo: {error}"))
}

/// Encodes a public key, with absent parameters.
pub fn encode(algorithm: KeyAlgorithm, public: &[u8]) -> Result<Vec<u8>, Error> {
    let info = SubjectPublicKeyInfo::<der::AnyRef<'_>, BitStringRef<'_>> {
        algorithm: AlgorithmIdentifier { oid: ObjectIdentifier::new(algorithm.oid()).map_err(unreadable)?, parameters: None },
        subject_public_key: BitStringRef::from_bytes(public).map_err(unreadable)?,
    };
    info.to_der().map_err(unreadable)
}

/// Decodes strictly: a known algorithm, no parameters, the exact length, no byte after it.
pub fn decode(bytes: &[u8]) -> Result<(KeyAlgorithm, &[u8]), Error> {
    let info = SubjectPublicKeyInfo::<der::AnyRef<'_>, BitStringRef<'_>>::from_der(bytes).map_err(unreadable)?;
    let oid = info.algorithm.oid.to_string();
    let algorithm =
        KeyAlgorithm::ALL.into_iter().find(|a| a.oid() == oid).ok_or_else(|| unreadable(format!("algorithm {oid} is not one of ours")))?;
    let public = info.subject_public_key.as_bytes().ok_or_else(|| unreadable("its bits do not fill whole bytes"))?;
    if info.algorithm.parameters.is_some() || public.len() != algorithm.public_len() {
        return Err(unreadable("parameters must be absent and the length that of the algorithm"));
    }
    Ok((algorithm, public))
}
