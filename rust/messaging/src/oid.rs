//! Every object identifier of the envelope.

use der::asn1::ObjectIdentifier;

const fn oid(dotted: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(dotted)
}

pub const DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.1");
pub const SIGNED_DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.2");
pub const CONTENT_TYPE: ObjectIdentifier = oid("1.2.840.113549.1.9.3");
pub const MESSAGE_DIGEST: ObjectIdentifier = oid("1.2.840.113549.1.9.4");
pub const SIGNING_TIME: ObjectIdentifier = oid("1.2.840.113549.1.9.5");
pub const CONTENT_INFO: ObjectIdentifier = oid("1.2.840.113549.1.9.16.1.6");
pub const AUTH_ENVELOPED_DATA: ObjectIdentifier = oid("1.2.840.113549.1.9.16.1.23");
pub const SECURE_HEADER_FIELDS: ObjectIdentifier = oid("1.2.840.113549.1.9.16.2.55");
pub const HKDF_SHA256: ObjectIdentifier = oid("1.2.840.113549.1.9.16.3.28");
pub const HKDF_SHA512: ObjectIdentifier = oid("1.2.840.113549.1.9.16.3.30");
pub const KEM_RECIPIENT: ObjectIdentifier = oid("1.2.840.113549.1.9.16.13.3");
pub const AES256_WRAP: ObjectIdentifier = oid("2.16.840.1.101.3.4.1.45");
pub const AES256_GCM: ObjectIdentifier = oid("2.16.840.1.101.3.4.1.46");
pub const SHA512: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.3");
