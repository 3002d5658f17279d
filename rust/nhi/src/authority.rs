//! A trust domain: the authority that vouches for its agents, and what others need to check that it did.

use crate::certificate::{self, Request};
use crate::spiffe::is_trust_domain;
use crate::statement::Statement;
use crate::{AgentId, AgentIdentity};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use creto_crypto::spki::KeyAlgorithm;
use creto_crypto::{Error, KemPublicKey, SigningKey, Suite, VerifyingKey, dsse};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

const IDENTITY: &str = "urn:creto:identity:1";
/// Clocks of two machines may differ by this much; certificates count from this long before they were made.
pub const CLOCK_SKEW_SECONDS: u64 = 60;

/// The secret half of a trust domain.
#[derive(Clone, Debug)]
pub struct Authority {
    key: SigningKey,
    domain: TrustDomain,
}

/// The public half: its name, keys and self-signed certificates.
#[derive(Clone, Debug)]
pub struct TrustDomain {
    name: String,
    key: VerifyingKey,
    certificates: Vec<Vec<u8>>,
    not_after: u64,
}

/// What an authority says of an identity: signed by every algorithm of the suite, so that no certificate in it can be exchanged by whoever
/// breaks only one of them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicate<'a> {
    #[serde(borrow)]
    suite: Cow<'a, str>,
    #[serde(borrow)]
    certificates: Vec<Cow<'a, str>>,
}

impl Authority {
    /// Makes a new trust domain with fresh keys.
    pub fn generate(name: &str, suite: Suite, now: u64, seconds: u64) -> Result<Self, Error> {
        Self::certify(name, SigningKey::generate(suite)?, now, seconds)
    }

    /// Certifies keys as those of a trust domain: one self-signed certificate for each algorithm.
    pub fn certify(name: &str, key: SigningKey, now: u64, seconds: u64) -> Result<Self, Error> {
        if !is_trust_domain(name) {
            return Err(Error::Malformed(format!("`{name}` cannot name a trust domain: use lower-case letters, digits, `.`, `-` and `_`")));
        }
        let uri = format!("spiffe://{name}");
        let certificates = key
            .suite()
            .signers()
            .iter()
            .map(|&algorithm| {
                let public = key.verifying_key().public(algorithm).unwrap_or_default();
                let request = Request {
                    uri: &uri,
                    algorithm: KeyAlgorithm::Signing(algorithm),
                    public,
                    authority: true,
                    not_before: now.saturating_sub(CLOCK_SKEW_SECONDS),
                    not_after: now.saturating_add(seconds),
                };
                certificate::issue(&request, &uri, &key, algorithm)
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::from_parts(name, key, certificates)
    }

    /// Puts a stored authority together again, and checks that its keys are those of its certificates.
    pub fn from_parts(name: &str, key: SigningKey, certificates: Vec<Vec<u8>>) -> Result<Self, Error> {
        let domain = TrustDomain::from_parts(name, key.verifying_key().clone(), certificates)?;
        Ok(Self { key, domain })
    }

    /// The public half.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Its keys, to be sealed.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Vouches for an identity and returns the statement that says so.
    pub fn issue(&self, id: &AgentId, key: &VerifyingKey, kem: &KemPublicKey, now: u64, seconds: u64) -> Result<String, Error> {
        if id.trust_domain() != self.domain.name {
            return Err(Error::Malformed(format!("`{id}` does not belong to trust domain `{}`", self.domain.name)));
        }
        if key.suite() != self.key.suite() || kem.algorithm() != key.suite().kem() {
            return Err(Error::Malformed(format!(
                "the keys of `{id}` are not of suite `{}`, which its trust domain uses",
                self.key.suite()
            )));
        }
        let uri = format!("spiffe://{}", self.domain.name);
        let not_after = now.saturating_add(seconds).min(self.domain.not_after);
        let signers = key.suite().signers();
        let signing = signers.iter().map(|&a| (KeyAlgorithm::Signing(a), key.public(a).unwrap_or_default(), a));
        let last = signers.last().copied().ok_or(Error::Signature)?;
        let certificates = signing
            .chain([(KeyAlgorithm::Kem(kem.algorithm()), kem.as_bytes(), last)])
            .map(|(algorithm, public, with)| {
                let request = Request {
                    uri: id.as_str(),
                    algorithm,
                    public,
                    authority: false,
                    not_before: now.saturating_sub(CLOCK_SKEW_SECONDS),
                    not_after,
                };
                Ok(STANDARD.encode(certificate::issue(&request, &uri, &self.key, with)?).into())
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let predicate = Predicate { suite: key.suite().name().into(), certificates };
        let payload = Statement::encode(IDENTITY, id.as_str(), key.fingerprint(), predicate)?;
        dsse::sign(&self.key, dsse::IN_TOTO, &payload)
    }
}

fn refused(error: impl core::fmt::Display) -> Error {
    Error::Malformed(format!("not an identity that this trust domain vouches for: {error}"))
}

impl TrustDomain {
    /// From its name, keys and self-signed certificates, which must agree.
    pub fn from_parts(name: &str, key: VerifyingKey, certificates: Vec<Vec<u8>>) -> Result<Self, Error> {
        let uri = format!("spiffe://{name}");
        let signers = key.suite().signers();
        if certificates.len() != signers.len() {
            return Err(refused("a trust domain has one certificate for each algorithm"));
        }
        let mut not_after = u64::MAX;
        for (algorithm, der) in signers.iter().copied().zip(&certificates) {
            let found = certificate::read(der, true, &uri, &key, algorithm)?;
            if found.uri != uri
                || found.algorithm != KeyAlgorithm::Signing(algorithm)
                || Some(found.public.as_slice()) != key.public(algorithm)
            {
                return Err(refused("its certificates are not those of its keys"));
            }
            not_after = not_after.min(found.not_after);
        }
        Ok(Self { name: name.to_owned(), key, certificates, not_after })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its statements verify under.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.key
    }

    /// Its self-signed certificates in DER, one for each algorithm: what an SVID verifier takes as its trust bundle.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// Admits an identity: the statement is signed by every key of this authority, each certificate in it chains to the key of its own
    /// algorithm, and all name the same agent. Whether it is valid at a given time is asked of the result.
    pub fn admit(&self, statement: &str) -> Result<AgentIdentity, Error> {
        let payload = dsse::verify(&self.key, dsse::IN_TOTO, statement)?;
        let statement = Statement::<Predicate<'_>>::read(&payload, IDENTITY).map_err(refused)?;
        let id = AgentId::parse(statement.name()).map_err(refused)?;
        let suite = Suite::parse(&statement.predicate.suite)?;
        if id.trust_domain() != self.name || suite != self.key.suite() {
            return Err(refused(format!("`{id}` is of another trust domain or suite")));
        }
        let certificates =
            statement.predicate.certificates.iter().map(|text| STANDARD.decode(&**text).map_err(refused)).collect::<Result<Vec<_>, _>>()?;
        let uri = format!("spiffe://{}", self.name);
        let last = suite.signers().last().copied().ok_or(Error::Signature)?;
        let expected = suite.signers().iter().map(|&a| (KeyAlgorithm::Signing(a), a)).chain([(KeyAlgorithm::Kem(suite.kem()), last)]);
        if certificates.len() != suite.signers().len() + 1 {
            return Err(refused("it lacks a certificate, or has one too many"));
        }
        let mut found = Vec::with_capacity(certificates.len());
        for ((algorithm, with), der) in expected.zip(&certificates) {
            let certificate = certificate::read(der, false, &uri, &self.key, with)?;
            if certificate.algorithm != algorithm || certificate.uri != id.as_str() {
                return Err(refused(format!("a certificate of `{id}` is for another key or name")));
            }
            found.push(certificate);
        }
        let Some((kem, signing)) = found.split_last() else { return Err(refused("it has no certificates")) };
        let verifying_key = VerifyingKey::from_parts(suite, &signing.iter().map(|c| c.public.as_slice()).collect::<Vec<_>>())?;
        if verifying_key.fingerprint() != statement.fingerprint() {
            return Err(refused("its digest is not that of its keys"));
        }
        Ok(AgentIdentity {
            id,
            verifying_key,
            kem_key: KemPublicKey::new(suite.kem(), &kem.public)?,
            not_before: found.iter().map(|c| c.not_before).max().unwrap_or(u64::MAX),
            not_after: found.iter().map(|c| c.not_after).min().unwrap_or(0),
            certificates,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use creto_crypto::KemKey;

    const NOW: u64 = 1_790_000_000;

    fn admitted(suite: Suite) -> (Authority, String, AgentIdentity) {
        let authority = Authority::generate("creto.test", suite, NOW, 1000).unwrap();
        let id = AgentId::agent("creto.test", "researcher").unwrap();
        let key = SigningKey::generate(suite).unwrap();
        let kem = KemKey::generate(suite.kem()).unwrap();
        let statement = authority.issue(&id, key.verifying_key(), kem.public_key(), NOW, 500).unwrap();
        let identity = authority.domain().admit(&statement).unwrap();
        assert_eq!(identity.verifying_key(), key.verifying_key());
        assert_eq!(identity.kem_key().id(), kem.public_key().id());
        (authority, statement, identity)
    }

    #[test]
    fn an_identity_is_admitted_by_the_domain_that_issued_it_and_by_no_other_of_the_same_name() {
        for suite in Suite::ALL {
            let (_, statement, identity) = admitted(*suite);
            assert_eq!(identity.certificates().len(), suite.signers().len() + 1);
            assert_eq!(identity.validity(), (NOW - CLOCK_SKEW_SECONDS, NOW + 500));
            let impostor = Authority::generate("creto.test", *suite, NOW, 1000).unwrap();
            assert_eq!(impostor.domain().admit(&statement).unwrap_err(), Error::Signature);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_certificate_is_refused() {
        let (authority, _, identity) = admitted(Suite::Standard);
        let key = authority.domain().verifying_key();
        let certificate = &identity.certificates()[0];
        let read = |der: &[u8]| certificate::read(der, false, "spiffe://creto.test", key, creto_crypto::Algorithm::Ed25519);
        assert_eq!(read(certificate).unwrap().uri, identity.id.as_str());
        for bit in 0..certificate.len() * 8 {
            let mut bad = certificate.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit}");
        }
        assert!(read(&[certificate.as_slice(), &[0]].concat()).is_err(), "a byte after it");
        assert!(
            certificate::read(certificate, true, "spiffe://creto.test", key, creto_crypto::Algorithm::Ed25519).is_err(),
            "a leaf is no authority"
        );
    }

    #[test]
    fn a_domain_vouches_for_its_own_agents_and_suite_only() {
        let authority = Authority::generate("creto.test", Suite::Standard, NOW, 1000).unwrap();
        let key = SigningKey::generate(Suite::Standard).unwrap();
        let kem = KemKey::generate(Suite::Standard.kem()).unwrap();
        let stranger = AgentId::agent("elsewhere.test", "x").unwrap();
        assert!(authority.issue(&stranger, key.verifying_key(), kem.public_key(), NOW, 10).is_err());
        let own = AgentId::agent("creto.test", "x").unwrap();
        let other = SigningKey::generate(Suite::Cnsa2).unwrap();
        assert!(authority.issue(&own, other.verifying_key(), kem.public_key(), NOW, 10).is_err());
    }
}
