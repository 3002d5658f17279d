//! X.509-SVIDs of one fixed profile: written here, and read back strictly.
//!
//! The profile is RFC 5280 as SPIFFE narrows it, with the public keys of RFC 8410, RFC 9881 and RFC 9935. A certificate of any other
//! shape is refused, whatever else might accept it.

use creto_crypto::asn1::{self, Walk};
use creto_crypto::spki::{self, KeyAlgorithm};
use creto_crypto::{Algorithm, Error, KeyId, Provider, SigningKey, VerifyingKey};
use der::asn1::{GeneralizedTime, ObjectIdentifier, UtcTime};
use der::{Decode as _, Encode as _};
use std::time::Duration;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
/// id-kp-serverAuth and id-kp-clientAuth: what Envoy and gRPC ask of an SVID.
const BOTH_SIDES_OF_TLS: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"), ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2")];
/// UTCTime ends with 2049 (RFC 5280, 4.1.2.5).
const YEAR_2050: u64 = 2_524_608_000;

/// What a certificate says; it is believed only when it came from `read` under a trusted key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The URI SAN.
    pub uri: String,
    /// What its key is for.
    pub algorithm: KeyAlgorithm,
    /// The public key, in its algorithm's own encoding.
    pub public: Vec<u8>,
    /// Seconds since the epoch.
    pub not_before: u64,
    /// Seconds since the epoch.
    pub not_after: u64,
}

/// What is to be certified.
pub struct Request<'a> {
    /// The URI SAN.
    pub uri: &'a str,
    /// What the key is for.
    pub algorithm: KeyAlgorithm,
    /// The public key.
    pub public: &'a [u8],
    /// True for a trust domain's own certificate.
    pub authority: bool,
    /// Seconds since the epoch.
    pub not_before: u64,
    /// Seconds since the epoch.
    pub not_after: u64,
}

fn oid(algorithm: KeyAlgorithm) -> Result<ObjectIdentifier, Error> {
    ObjectIdentifier::new(algorithm.oid()).map_err(refused)
}

fn refused(error: impl core::fmt::Display) -> Error {
    Error::Malformed(format!("not a certificate of a creto trust domain: {error}"))
}

fn name(common: &str) -> Vec<u8> {
    let mut out = Vec::new();
    asn1::nest(&mut out, asn1::SEQUENCE, |out| {
        asn1::nest(out, asn1::SET, |out| {
            asn1::nest(out, asn1::SEQUENCE, |out| {
                asn1::put_oid(out, COMMON_NAME);
                asn1::put(out, asn1::UTF8_STRING, common.as_bytes());
            });
        });
    });
    out
}

/// The common name may hold 64 characters (RFC 5280, ub-common-name); the URI is what counts.
fn common_name(uri: &str) -> String {
    let last = uri.rsplit('/').next().unwrap_or_default();
    last.chars().take(64).collect()
}

fn time(seconds: u64) -> Result<Vec<u8>, Error> {
    let since = Duration::from_secs(seconds);
    if seconds < YEAR_2050 {
        UtcTime::from_unix_duration(since).and_then(|time| time.to_der()).map_err(refused)
    } else {
        GeneralizedTime::from_unix_duration(since).and_then(|time| time.to_der()).map_err(refused)
    }
}

fn read_time(walk: &mut Walk<'_>) -> Result<u64, Error> {
    let element = walk.any()?;
    let seconds = match element.tag {
        asn1::UTC_TIME => UtcTime::from_der(element.whole).map_err(refused)?.to_unix_duration().as_secs(),
        asn1::GENERALIZED_TIME => GeneralizedTime::from_der(element.whole).map_err(refused)?.to_unix_duration().as_secs(),
        _ => return Err(refused("a time of another type")),
    };
    if time(seconds)? == element.whole { Ok(seconds) } else { Err(refused("a time that is not written as RFC 5280 has it")) }
}

fn algorithm_identifier(out: &mut Vec<u8>, algorithm: ObjectIdentifier) {
    asn1::nest(out, asn1::SEQUENCE, |out| asn1::put_oid(out, algorithm));
}

fn extension(out: &mut Vec<u8>, oid: ObjectIdentifier, critical: bool, value: impl FnOnce(&mut Vec<u8>)) {
    asn1::nest(out, asn1::SEQUENCE, |out| {
        asn1::put_oid(out, oid);
        if critical {
            asn1::put(out, asn1::BOOLEAN, &[0xff]);
        }
        asn1::nest(out, asn1::OCTET_STRING, value);
    });
}

/// Every extension of the profile, in its one order; reading compares with what would have been written.
fn extensions(request: &Request<'_>, issuer: KeyId) -> Vec<u8> {
    let mut out = Vec::new();
    asn1::nest(&mut out, asn1::SEQUENCE, |out| {
        extension(out, BASIC_CONSTRAINTS, true, |out| {
            asn1::nest(out, asn1::SEQUENCE, |out| {
                if request.authority {
                    asn1::put(out, asn1::BOOLEAN, &[0xff]);
                }
            });
        });
        extension(out, KEY_USAGE, true, |out| {
            let bits = match (request.authority, request.algorithm) {
                (true, _) => [1, 0x06],                         // keyCertSign, cRLSign
                (false, KeyAlgorithm::Signing(_)) => [7, 0x80], // digitalSignature
                (false, KeyAlgorithm::Kem(_)) => [5, 0x20],     // keyEncipherment
            };
            asn1::put(out, asn1::BIT_STRING, &bits);
        });
        if !request.authority && matches!(request.algorithm, KeyAlgorithm::Signing(_)) {
            extension(out, EXTENDED_KEY_USAGE, false, |out| {
                asn1::nest(out, asn1::SEQUENCE, |out| BOTH_SIDES_OF_TLS.into_iter().for_each(|purpose| asn1::put_oid(out, purpose)));
            });
        }
        extension(out, SUBJECT_ALT_NAME, false, |out| {
            asn1::nest(out, asn1::SEQUENCE, |out| asn1::put(out, asn1::implicit(6), request.uri.as_bytes()));
        });
        extension(out, SUBJECT_KEY_ID, false, |out| asn1::put(out, asn1::OCTET_STRING, &KeyId::of(request.public).0));
        extension(out, AUTHORITY_KEY_ID, false, |out| {
            asn1::nest(out, asn1::SEQUENCE, |out| asn1::put(out, asn1::implicit(0), &issuer.0));
        });
    });
    out
}

/// Certifies a key under one of the authority's keys.
pub fn issue(request: &Request<'_>, issuer_uri: &str, issuer: &SigningKey, with: Algorithm) -> Result<Vec<u8>, Error> {
    let issuer_id = issuer.verifying_key().key_id(with).ok_or_else(|| refused(format!("the authority has no {with} key")))?;
    let mut serial: [u8; 16] = Provider::chosen().nonce()?;
    // A positive INTEGER of exactly 16 bytes.
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    let signer = oid(KeyAlgorithm::Signing(with))?;
    let info = spki::encode(request.algorithm, request.public)?;
    let validity = [time(request.not_before)?, time(request.not_after)?].concat();
    let mut tbs = Vec::new();
    asn1::nest(&mut tbs, asn1::SEQUENCE, |out| {
        asn1::nest(out, asn1::explicit(0), |out| asn1::put(out, asn1::INTEGER, &[2]));
        asn1::put(out, asn1::INTEGER, &serial);
        algorithm_identifier(out, signer);
        out.extend_from_slice(&name(&common_name(issuer_uri)));
        asn1::put(out, asn1::SEQUENCE, &validity);
        out.extend_from_slice(&name(&common_name(request.uri)));
        out.extend_from_slice(&info);
        asn1::put(out, asn1::explicit(3), &extensions(request, issuer_id));
    });
    let mut signature = vec![0];
    issuer.sign_with(with, &tbs, &mut signature)?;
    let mut out = Vec::with_capacity(tbs.len() + signature.len() + 32);
    asn1::nest(&mut out, asn1::SEQUENCE, |out| {
        out.extend_from_slice(&tbs);
        algorithm_identifier(out, signer);
        asn1::put(out, asn1::BIT_STRING, &signature);
    });
    Ok(out)
}

/// Reads a certificate that the authority signed with one of its keys; anything outside the profile is refused.
pub fn read(der: &[u8], authority: bool, issuer_uri: &str, issuer: &VerifyingKey, with: Algorithm) -> Result<Certificate, Error> {
    let mut signer = Vec::new();
    algorithm_identifier(&mut signer, oid(KeyAlgorithm::Signing(with))?);
    let mut outer = Walk::only(der, asn1::SEQUENCE)?.walk()?;
    let tbs = outer.expect(asn1::SEQUENCE)?;
    outer.exactly(&signer)?;
    let signature = outer.expect(asn1::BIT_STRING)?.content.strip_prefix(&[0]).ok_or_else(|| refused("a signature of odd bits"))?;
    outer.finish()?;
    issuer.verify_with(with, tbs.whole, signature)?;

    let mut walk = tbs.walk()?;
    walk.exactly(&[0xa0, 3, asn1::INTEGER, 1, 2])?;
    let serial = walk.expect(asn1::INTEGER)?.content;
    if serial.len() != 16 || serial.first().is_none_or(|first| first & 0x80 != 0) {
        return Err(refused("the serial number is not a positive one of 16 bytes"));
    }
    walk.exactly(&signer)?;
    walk.exactly(&name(&common_name(issuer_uri)))?;
    let mut validity = walk.expect(asn1::SEQUENCE)?.walk()?;
    let (not_before, not_after) = (read_time(&mut validity)?, read_time(&mut validity)?);
    validity.finish()?;
    let subject = walk.expect(asn1::SEQUENCE)?;
    let (algorithm, public) = spki::decode(walk.expect(asn1::SEQUENCE)?.whole)?;
    let found = walk.expect(asn1::explicit(3))?.content;
    walk.finish()?;

    let uri = uri_of(found)?;
    let request = Request { uri, algorithm, public, authority, not_before, not_after };
    let issuer_id = issuer.key_id(with).ok_or(Error::Signature)?;
    if found != extensions(&request, issuer_id) || subject.whole != name(&common_name(uri)) {
        return Err(refused("its extensions or subject are not those of the profile"));
    }
    Ok(Certificate { uri: uri.to_owned(), algorithm, public: public.to_vec(), not_before, not_after })
}

/// The one URI in the SAN.
fn uri_of(extensions: &[u8]) -> Result<&str, Error> {
    let mut walk = Walk::only(extensions, asn1::SEQUENCE)?.walk()?;
    while !walk.is_finished() {
        let mut extension = walk.expect(asn1::SEQUENCE)?.walk()?;
        if extension.expect(asn1::OID)?.content == SUBJECT_ALT_NAME.as_bytes() {
            let names = extension.expect(asn1::OCTET_STRING)?.content;
            let mut names = Walk::only(names, asn1::SEQUENCE)?.walk()?;
            let uri = names.expect(asn1::implicit(6))?.content;
            names.finish()?;
            return core::str::from_utf8(uri).map_err(refused);
        }
    }
    Err(refused("it has no URI"))
}
