//! The parts of an envelope that are the same in every message of a suite, and what both sides derive.

use crate::oid;
use creto_crypto::asn1;
use creto_crypto::{Algorithm, Error, Hash, Provider, Secret, Suite};
use der::asn1::ObjectIdentifier;

/// Bytes of a wrapped key.
pub const WRAPPED: usize = 40;
/// Bytes of a nonce.
pub const NONCE: usize = 12;
/// Bytes of the digest that is signed.
pub const DIGEST: usize = 64;
/// Bytes of a tag.
pub const TAG: usize = 16;
/// What names the use of the commitment's derivation.
const COMMITMENT: &[u8] = b"creto cek-commit v1";

/// An AlgorithmIdentifier without parameters.
pub fn algorithm(oid: ObjectIdentifier) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    asn1::put_header(&mut out, asn1::SEQUENCE, asn1::element_len(oid.as_bytes().len()));
    asn1::put_oid(&mut out, oid);
    out
}

/// The AlgorithmIdentifier of a dotted OID that a suite names.
fn dotted(text: &str) -> Result<Vec<u8>, Error> {
    ObjectIdentifier::new(text).map(algorithm).map_err(|error| Error::Unavailable(format!("object identifier {text}: {error}")))
}

/// The fixed parts, ready to be copied or compared.
pub struct Profile {
    pub suite: Suite,
    pub digest: Vec<u8>,
    pub kem: Vec<u8>,
    pub kdf: Vec<u8>,
    pub wrap: Vec<u8>,
    pub other_info: Vec<u8>,
    pub signers: Vec<(Algorithm, Vec<u8>)>,
}

impl Profile {
    fn new(suite: Suite) -> Result<Self, Error> {
        let wrap = algorithm(oid::AES256_WRAP);
        // RFC 9629, section 5: CMSORIforKEMOtherInfo, without ukm.
        let mut other_info = Vec::new();
        asn1::nest(&mut other_info, asn1::SEQUENCE, |out| {
            out.extend_from_slice(&wrap);
            asn1::put(out, asn1::INTEGER, &[32]);
        });
        Ok(Self {
            suite,
            digest: algorithm(oid::SHA512),
            kem: dotted(suite.kem().oid())?,
            kdf: algorithm(match suite.kdf() {
                Hash::Sha512 => oid::HKDF_SHA512,
                _ => oid::HKDF_SHA256,
            }),
            wrap,
            other_info,
            signers: suite.signers().iter().map(|&a| Ok((a, dotted(a.oid())?))).collect::<Result<_, Error>>()?,
        })
    }

    /// The profile of a suite, made once.
    pub fn of(suite: Suite) -> Result<&'static Self, Error> {
        use std::sync::OnceLock;
        static MADE: [OnceLock<Result<Profile, Error>>; Suite::ALL.len()] = [const { OnceLock::new() }; Suite::ALL.len()];
        let cell = MADE.get(suite as usize).ok_or_else(|| Error::Unavailable(format!("suite `{suite}` has no envelope")))?;
        cell.get_or_init(|| Self::new(suite)).as_ref().map_err(Clone::clone)
    }

    /// The key-encryption key from a KEM's shared secret.
    pub fn kek(&self, shared: &Secret<32>) -> Result<Secret<32>, Error> {
        Provider::chosen().derivation.hkdf(self.suite.kdf(), shared.expose(), &self.other_info)
    }

    /// What binds a content-encryption key to its nonce.
    pub fn commitment(&self, cek: &Secret<32>, nonce: &[u8; NONCE]) -> Result<[u8; 32], Error> {
        Provider::chosen().derivation.expand(self.suite.kdf(), cek, &[COMMITMENT, nonce])
    }

    /// Bytes of one RecipientInfo.
    pub fn recipient_len(&self) -> usize {
        asn1::element_len(asn1::element_len(oid::KEM_RECIPIENT.as_bytes().len()) + asn1::element_len(self.kem_recipient_len()))
    }

    fn kem_recipient_len(&self) -> usize {
        3 + 22
            + self.kem.len()
            + asn1::element_len(self.suite.kem().ciphertext_len())
            + self.kdf.len()
            + 3
            + self.wrap.len()
            + asn1::element_len(WRAPPED)
    }

    /// Appends one RecipientInfo up to its encrypted key.
    pub fn put_recipient_head(&self, out: &mut Vec<u8>, key_id: &[u8; 20]) {
        let oid_len = asn1::element_len(oid::KEM_RECIPIENT.as_bytes().len());
        asn1::put_header(out, asn1::explicit(4), oid_len + asn1::element_len(self.kem_recipient_len()));
        asn1::put_oid(out, oid::KEM_RECIPIENT);
        asn1::put_header(out, asn1::SEQUENCE, self.kem_recipient_len());
        asn1::put(out, asn1::INTEGER, &[0]);
        asn1::put(out, asn1::implicit(0), key_id);
        out.extend_from_slice(&self.kem);
        asn1::put_header(out, asn1::OCTET_STRING, self.suite.kem().ciphertext_len());
    }

    /// Appends the rest, after the KEM ciphertext.
    pub fn put_recipient_tail(&self, out: &mut Vec<u8>, wrapped: &[u8; WRAPPED]) {
        out.extend_from_slice(&self.kdf);
        asn1::put(out, asn1::INTEGER, &[32]);
        out.extend_from_slice(&self.wrap);
        asn1::put(out, asn1::OCTET_STRING, wrapped);
    }

    /// The algorithm of the content encryption: aes-256-gcm with its nonce and the length of its tag.
    pub fn content_algorithm(nonce: &[u8; NONCE]) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        asn1::nest(&mut out, asn1::SEQUENCE, |out| {
            asn1::put_oid(out, oid::AES256_GCM);
            asn1::nest(out, asn1::SEQUENCE, |out| {
                asn1::put(out, asn1::OCTET_STRING, nonce);
                asn1::put(out, asn1::INTEGER, &[TAG as u8]);
            });
        });
        out
    }

    /// The content of a SignerInfo's `signedAttrs`, in the order of a SET OF; it ends with the digest.
    pub fn signed_attributes(date: u64, digest: &[u8; DIGEST]) -> creto_enablement_common::Result<Vec<u8>> {
        let mut time = Vec::with_capacity(17);
        crate::time::put_signing_time(&mut time, date)?;
        let mut out = Vec::with_capacity(160);
        attribute(&mut out, oid::CONTENT_TYPE, |out| asn1::put_oid(out, oid::CONTENT_INFO));
        attribute(&mut out, oid::SIGNING_TIME, |out| out.extend_from_slice(&time));
        attribute(&mut out, oid::MESSAGE_DIGEST, |out| asn1::put(out, asn1::OCTET_STRING, digest));
        Ok(out)
    }
}

/// Appends an attribute with one value.
pub fn attribute(out: &mut Vec<u8>, oid: ObjectIdentifier, value: impl FnOnce(&mut Vec<u8>)) {
    asn1::nest(out, asn1::SEQUENCE, |out| {
        asn1::put_oid(out, oid);
        asn1::nest(out, asn1::SET, value);
    });
}
