//! Opening: everything about a message is verified before anything of it is decapsulated.

use crate::header::Header;
use crate::oid;
use crate::profile::{NONCE, Profile, TAG, WRAPPED};
use creto_crypto::asn1::{self, Element, Walk};
use creto_crypto::{Hash, KemKey, KeyId, Provider, Secret, Suite};
use creto_enablement_common::{AgentId, AgentIdentity, Error, ErrorKind, Result};
use creto_nhi::Directory;
use std::ops::Range;
use std::sync::Arc;

/// A message may come from a clock that is this much ahead.
pub const CLOCK_SKEW_SECONDS: u64 = 60;
/// The longest life of a message that is handed over directly.
pub const DIRECT_SECONDS: u64 = 300;
/// The longest life of a message that goes through a mailbox.
pub const MAILBOX_SECONDS: u64 = 24 * 3600;

/// What a recipient demands of a message.
#[derive(Clone, Copy, Debug)]
pub struct Acceptance<'a> {
    /// The recipient's own id.
    pub me: &'a AgentId,
    /// Who is known.
    pub directory: &'a Directory,
    /// The only suite that is accepted.
    pub suite: Suite,
    /// Most bytes of an envelope.
    pub max_bytes: usize,
    /// Longest life of a message, in seconds.
    pub max_life: u64,
    /// Seconds since the epoch.
    pub now: u64,
}

/// A message whose origin and addressing hold; its content is still sealed.
///
/// It holds places within the envelope, not the envelope; `open` is given the same bytes again, and others do not open.
#[derive(Debug)]
pub struct Verified {
    header: Header,
    sender: Arc<AgentIdentity>,
    profile: &'static Profile,
    recipients: Vec<Place>,
    nonce: [u8; NONCE],
    body: Range<usize>,
    attributes: Range<usize>,
    tag: [u8; TAG],
}

#[derive(Debug)]
struct Place {
    key: KeyId,
    ciphertext: Range<usize>,
    wrapped: [u8; WRAPPED],
}

impl core::fmt::Debug for Profile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Profile({})", self.suite)
    }
}

struct Recipient<'a> {
    key: KeyId,
    ciphertext: &'a [u8],
    wrapped: &'a [u8; WRAPPED],
}

/// The parts of an envelope, strictly read and not yet believed.
struct Parts<'a> {
    header: Header,
    content: &'a [u8],
    recipients: Vec<Recipient<'a>>,
    nonce: &'a [u8; NONCE],
    body: &'a [u8],
    attributes: &'a [u8],
    tag: &'a [u8; TAG],
    signers: Vec<Signer<'a>>,
}

struct Signer<'a> {
    key: KeyId,
    attributes: &'a [u8],
    signature: &'a [u8],
}

/// The one answer to every fault that shows after the signatures held: it tells nothing of which.
fn sealed() -> Error {
    Error::new(ErrorKind::EncryptionFailed).with_context("the message cannot be opened by this recipient")
}

fn fixed<'a, const N: usize>(element: &Element<'a>, what: &str) -> Result<&'a [u8; N]> {
    element
        .content
        .try_into()
        .map_err(|_| Error::invalid(format!("the {what} of the envelope has {} bytes, not {N}", element.content.len())))
}

/// Verifies a message: size, encoding, suite, signatures, writer, addressing and times, in this order.
pub fn verify(envelope: &[u8], acceptance: &Acceptance<'_>) -> Result<Verified> {
    if envelope.len() > acceptance.max_bytes {
        return Err(Error::invalid(format!("the envelope has {} bytes, and {} are the limit", envelope.len(), acceptance.max_bytes)));
    }
    let parts = read(envelope, acceptance.suite)?;
    let sender = signed_by(&parts, acceptance)?;
    let header = parts.header;
    let me = acceptance.me;
    let fits = (sender.id == header.from)
        & (header.to.iter().filter(|id| *id == me).count() == 1)
        & (header.to.len() == parts.recipients.len())
        & acceptance.directory.may_sign_at(&sender, header.date)
        & (header.date <= acceptance.now.saturating_add(CLOCK_SKEW_SECONDS))
        & (acceptance.now < header.expires)
        & (header.expires.saturating_sub(header.date) <= acceptance.max_life);
    if !fits {
        return Err(sealed());
    }
    let profile = Profile::of(acceptance.suite)?;
    let place = |part: &[u8]| {
        let start = (part.as_ptr() as usize).saturating_sub(envelope.as_ptr() as usize);
        start..start + part.len()
    };
    let recipients = parts.recipients.iter().map(|r| Place { key: r.key, ciphertext: place(r.ciphertext), wrapped: *r.wrapped }).collect();
    let (body, attributes) = (place(parts.body), place(parts.attributes));
    Ok(Verified { header, sender, profile, recipients, nonce: *parts.nonce, body, attributes, tag: *parts.tag })
}

/// Who signed the parts: one known identity with every key of its suite, over these bytes.
fn signed_by(parts: &Parts<'_>, acceptance: &Acceptance<'_>) -> Result<Arc<AgentIdentity>> {
    let unknown = || {
        Error::new(ErrorKind::NotFound).with_context(format!(
            "the message claims to be from `{}`, whose keys are not known here; import its bundle with `creto agent import`",
            parts.header.from
        ))
    };
    let failed = || Error::new(ErrorKind::SignatureVerificationFailed).with_context(format!("the message from `{}`", parts.header.from));
    let ids = parts.signers.iter().map(|signer| signer.key);
    let sender = acceptance.directory.by_keys(ids, &parts.header.from).ok_or_else(|| match parts.signers.first() {
        Some(first) if acceptance.directory.knows_key(&first.key) => failed(),
        _ => unknown(),
    })?;
    let digest = Provider::chosen().derivation.digest(Hash::Sha512, &[parts.content]);
    let expected = Profile::signed_attributes(parts.header.date, &digest)?;
    let mut signed = Vec::with_capacity(asn1::element_len(expected.len()));
    asn1::put(&mut signed, asn1::SET, &expected);
    let key = sender.verifying_key();
    let mut valid = key.suite() == acceptance.suite;
    for ((algorithm, _), signer) in key.key_ids().zip(&parts.signers) {
        // The attributes are compared with what they must be: content type, date and digest all follow from the content.
        valid &= signer.attributes == expected;
        valid &= key.verify_with(algorithm, &signed, signer.signature).is_ok();
    }
    if valid { Ok(sender) } else { Err(failed()) }
}

/// Reads an envelope of the profile; what is not in the profile has no reading.
fn read(envelope: &[u8], suite: Suite) -> Result<Parts<'_>> {
    let profile = Profile::of(suite)?;
    let mut outer = Walk::only(envelope, asn1::SEQUENCE)?.walk()?;
    outer.oid(oid::SIGNED_DATA)?;
    let signed = Walk::only(outer.expect(asn1::explicit(0))?.content, asn1::SEQUENCE)?;
    outer.finish()?;
    let mut signed = signed.walk()?;
    signed.exactly(&[asn1::INTEGER, 1, 3])?;
    let digests = signed.expect(asn1::SET)?;
    let mut wrapped = signed.expect(asn1::SEQUENCE)?.walk()?;
    wrapped.oid(oid::CONTENT_INFO)?;
    let content = Walk::only(wrapped.expect(asn1::explicit(0))?.content, asn1::OCTET_STRING)?.content;
    wrapped.finish()?;
    let signers = signed.expect(asn1::SET)?;
    signed.finish()?;

    let mut inner = Walk::only(content, asn1::SEQUENCE)?.walk()?;
    inner.oid(oid::AUTH_ENVELOPED_DATA)?;
    let enveloped = Walk::only(inner.expect(asn1::explicit(0))?.content, asn1::SEQUENCE)?;
    inner.finish()?;
    let mut enveloped = enveloped.walk()?;
    enveloped.exactly(&[asn1::INTEGER, 1, 0])?;
    let recipients = enveloped.expect(asn1::SET)?;
    let mut encrypted = enveloped.expect(asn1::SEQUENCE)?.walk()?;
    let attributes = enveloped.expect(asn1::explicit(1))?.content;
    let tag = fixed(&enveloped.expect(asn1::OCTET_STRING)?, "tag")?;
    enveloped.finish()?;

    encrypted.oid(oid::DATA)?;
    let mut content_algorithm = encrypted.expect(asn1::SEQUENCE)?.walk()?;
    content_algorithm.oid(oid::AES256_GCM)?;
    let mut parameters = content_algorithm.expect(asn1::SEQUENCE)?.walk()?;
    content_algorithm.finish()?;
    let nonce = fixed(&parameters.expect(asn1::OCTET_STRING)?, "nonce")?;
    parameters.exactly(&[asn1::INTEGER, 1, TAG as u8])?;
    parameters.finish()?;
    let body = encrypted.expect(asn1::implicit(0))?.content;
    encrypted.finish()?;

    let header = read_header(attributes)?;
    if header.suite != suite {
        return Err(Error::invalid(format!("the message was made with suite `{}`, and only `{suite}` is accepted here", header.suite)));
    }
    if digests.content != profile.digest {
        return Err(Error::invalid("the envelope names another digest than SHA-512"));
    }
    Ok(Parts {
        header,
        content,
        recipients: read_recipients(&recipients, profile)?,
        nonce,
        body,
        attributes,
        tag,
        signers: read_signers(&signers, profile)?,
    })
}

fn read_header(attributes: &[u8]) -> Result<Header> {
    let mut attribute = Walk::only(attributes, asn1::SEQUENCE)?.walk()?;
    attribute.oid(oid::SECURE_HEADER_FIELDS)?;
    let values = attribute.expect(asn1::SET)?.content;
    attribute.finish()?;
    Header::decode(values)
}

fn read_recipients<'a>(set: &Element<'a>, profile: &Profile) -> Result<Vec<Recipient<'a>>> {
    let mut walk = set.walk()?;
    let mut found = Vec::new();
    let mut before: &[u8] = &[];
    while !walk.is_finished() {
        let element = walk.expect(asn1::explicit(4))?;
        if element.whole <= before || found.len() == crate::header::MAX_RECIPIENTS {
            return Err(Error::invalid("the recipients of the envelope are out of order, doubled or too many"));
        }
        before = element.whole;
        let mut other = element.walk()?;
        other.oid(oid::KEM_RECIPIENT)?;
        let mut kem = other.expect(asn1::SEQUENCE)?.walk()?;
        other.finish()?;
        kem.exactly(&[asn1::INTEGER, 1, 0])?;
        let key = KeyId(*fixed(&kem.expect(asn1::implicit(0))?, "key identifier")?);
        kem.exactly(&profile.kem)?;
        let ciphertext = kem.expect(asn1::OCTET_STRING)?.content;
        kem.exactly(&profile.kdf)?;
        kem.exactly(&[asn1::INTEGER, 1, 32])?;
        kem.exactly(&profile.wrap)?;
        let wrapped = fixed(&kem.expect(asn1::OCTET_STRING)?, "wrapped key")?;
        kem.finish()?;
        if ciphertext.len() != profile.suite.kem().ciphertext_len() {
            return Err(Error::invalid("a key ciphertext of the envelope has another length than its algorithm's"));
        }
        found.push(Recipient { key, ciphertext, wrapped });
    }
    Ok(found)
}

fn read_signers<'a>(set: &Element<'a>, profile: &Profile) -> Result<Vec<Signer<'a>>> {
    let mut walk = set.walk()?;
    let mut found = Vec::with_capacity(profile.signers.len());
    // Exactly one for each algorithm of the suite, in the order that a SET OF gives them: shorter first.
    for (algorithm, identifier) in &profile.signers {
        let missing =
            |_| Error::new(ErrorKind::SignatureVerificationFailed).with_context(format!("the signature of {algorithm} is missing"));
        let mut signer = walk.expect(asn1::SEQUENCE).map_err(missing)?.walk()?;
        signer.exactly(&[asn1::INTEGER, 1, 3])?;
        let key = KeyId(*fixed(&signer.expect(asn1::implicit(0))?, "key identifier")?);
        signer.exactly(&profile.digest)?;
        let attributes = signer.expect(asn1::explicit(0))?.content;
        signer.exactly(identifier)?;
        let signature = signer.expect(asn1::OCTET_STRING)?.content;
        signer.finish()?;
        found.push(Signer { key, attributes, signature });
    }
    if !walk.is_finished() {
        return Err(Error::new(ErrorKind::SignatureVerificationFailed).with_context("the envelope has a signature too many"));
    }
    Ok(found)
}

/// What an envelope says of itself, believed by nobody yet: to show it, or to find out whose keys are needed.
pub fn unverified_header(envelope: &[u8], suite: Suite) -> Result<Header> {
    read(envelope, suite).map(|parts| parts.header)
}

impl Verified {
    /// The header fields.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Who signed it.
    pub fn sender(&self) -> &Arc<AgentIdentity> {
        &self.sender
    }

    /// Opens the content of the same envelope with whichever of the recipient's keys it was sealed for; to be called once replay has been
    /// ruled out.
    pub fn open(&self, envelope: &[u8], keys: &[KemKey]) -> Result<Vec<u8>> {
        let found = self.recipients.iter().find_map(|place| {
            let key = keys.iter().find(|key| key.public_key().id() == place.key)?;
            Some((place, key))
        });
        let (place, key) = found.ok_or_else(sealed)?;
        self.open_at(envelope, place, key).map_err(|_| sealed())
    }

    fn open_at(&self, envelope: &[u8], place: &Place, key: &KemKey) -> core::result::Result<Vec<u8>, creto_crypto::Error> {
        use creto_crypto::Error::Decryption;
        let provider = Provider::chosen();
        let shared = key.decapsulate(envelope.get(place.ciphertext.clone()).ok_or(Decryption)?)?;
        // No early exit: whichever of the three steps fails, all three are taken, and how long it took tells nothing.
        let unwrapped = provider.symmetric.unwrap(&self.profile.kek(&shared)?, &place.wrapped);
        let mut good = unwrapped.is_ok();
        let cek = unwrapped.unwrap_or_else(|_| Secret::zero());
        good &= creto_crypto::equal(&self.profile.commitment(&cek, &self.nonce)?, &self.header.commitment);
        let attributes = envelope.get(self.attributes.clone()).ok_or(Decryption)?;
        let mut associated = Vec::with_capacity(asn1::element_len(attributes.len()));
        asn1::put(&mut associated, asn1::SET, attributes);
        let mut body = envelope.get(self.body.clone()).ok_or(Decryption)?.to_vec();
        good &= provider.symmetric.open(&cek, &self.nonce, &associated, &mut body, &self.tag).is_ok();
        if good { Ok(body) } else { Err(Decryption) }
    }
}
