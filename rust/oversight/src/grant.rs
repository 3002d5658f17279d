//! A human's answer: an in-toto Statement about the digest of one act, signed (DSSE) with the approver's own keys.
//!
//! A `Grant` exists only where such a statement was verified; nothing else makes one.

use crate::act::{Act, ActDigest, Terms};
use crate::encode::canonical;
use creto_crypto::{SigningKey, Suite, VerifyingKey, dsse};
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt as _};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "urn:creto:oversight:answer:1";

/// What a human says about an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It may be done, once, before its expiry.
    Approved,
    /// It may not be done.
    Denied,
}

/// An answer before it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    /// The oversight request.
    pub request: &'a str,
    /// The policy that asks, the request's nonce, and how long the answer is good.
    pub terms: Terms<'a>,
    /// The approver's id.
    pub approver: &'a str,
    /// What was answered.
    pub answer: Answer,
    /// Why; may be empty.
    pub reason: &'a str,
    /// When, in microseconds since the Unix epoch.
    pub decided: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(rename = "_type")]
    kind: String,
    subject: [Subject; 1],
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicate {
    answer: Answer,
    approver: String,
    decided: u64,
    expiry: u64,
    nonce: String,
    policy: String,
    reason: String,
    suite: String,
}

impl Statement<'_> {
    /// Signs the answer about `act`; the suite is that of the key. Returns the DSSE envelope.
    ///
    /// # Errors
    /// `InvalidInput` where the terms are not usable, `Internal` where the key cannot sign.
    pub fn sign(&self, act: &Act, key: &SigningKey) -> Result<String> {
        let suite = key.verifying_key().suite();
        let digest = act.digest(&self.terms, suite)?;
        let wire = Wire {
            kind: STATEMENT.to_owned(),
            subject: [Subject {
                name: self.request.to_owned(),
                digest: BTreeMap::from([(digest.algorithm().to_owned(), digest.to_string())]),
            }],
            predicate_type: PREDICATE.to_owned(),
            predicate: Predicate {
                answer: self.answer,
                approver: self.approver.to_owned(),
                decided: self.decided,
                expiry: self.terms.expiry,
                nonce: base16ct::lower::encode_string(self.terms.nonce),
                policy: self.terms.policy.to_owned(),
                reason: self.reason.to_owned(),
                suite: suite.name().to_owned(),
            },
        };
        let payload = canonical(&serde_json::to_value(&wire).map_err(|e| Error::internal("writing an answer").with_source(e))?)?;
        Ok(dsse::sign(key, dsse::IN_TOTO, &payload)?)
    }
}

/// A verified agreement to one act under one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    request: String,
    policy: String,
    approver: String,
    reason: String,
    nonce: [u8; 16],
    decided: u64,
    expiry: u64,
    suite: Suite,
    digest: ActDigest,
}

impl Grant {
    /// Verifies an envelope: signed by exactly this approver's keys, about exactly this act, an agreement, and not yet expired.
    ///
    /// # Errors
    /// `SignatureVerificationFailed` for other keys, `Unauthorized` for another act, another approver, a denial or an expired answer,
    /// `InvalidInput` for what is not an answer.
    pub fn verify(envelope: &str, act: &Act, approver: &str, key: &VerifyingKey, now: u64) -> Result<Self> {
        let grant = Self::read(envelope, approver, key, Answer::Approved)?;
        if !grant.covers(act)? {
            return Err(refusal(format!("the grant of `{approver}` is for another act: its digest is {}", grant.digest)));
        }
        if now > grant.expiry {
            return Err(refusal(format!("the grant of `{approver}` has expired")));
        }
        Ok(grant)
    }

    /// Verifies that `approver` has denied this act.
    ///
    /// # Errors
    /// As `verify`, but for an agreement in place of a denial; a denial does not expire.
    pub fn verify_denial(envelope: &str, act: &Act, approver: &str, key: &VerifyingKey) -> Result<()> {
        if Self::read(envelope, approver, key, Answer::Denied)?.covers(act)? {
            return Ok(());
        }
        Err(refusal(format!("the denial of `{approver}` is about another act")))
    }

    fn read(envelope: &str, approver: &str, key: &VerifyingKey, wanted: Answer) -> Result<Self> {
        let payload = dsse::verify(key, dsse::IN_TOTO, envelope).context(|| format!("checking the answer of `{approver}`"))?;
        let wrong = |what: &str| Error::invalid(format!("this is not an answer to an oversight request: {what}"));
        let wire: Wire = serde_json::from_slice(&payload).map_err(|e| wrong(&e.to_string()))?;
        if wire.kind != STATEMENT || wire.predicate_type != PREDICATE {
            return Err(wrong(&format!("it is a `{}`", wire.predicate_type)));
        }
        let [subject] = wire.subject;
        let said = wire.predicate;
        let suite = key.suite();
        if said.approver != approver || said.suite != suite.name() {
            return Err(refusal(format!("the answer says it is of `{}` (suite {}), not of `{approver}`", said.approver, said.suite)));
        }
        if said.answer != wanted {
            return Err(refusal(format!("`{approver}` did not say that: the answer was {:?}", said.answer).to_lowercase()));
        }
        let nonce = base16ct::lower::decode_vec(&said.nonce)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| wrong("its nonce is not 16 bytes"))?;
        let stated: Option<(&str, Vec<u8>)> = match subject.digest.iter().next() {
            Some((name, hex)) if subject.digest.len() == 1 => base16ct::lower::decode_vec(hex).ok().map(|bytes| (name.as_str(), bytes)),
            _ => None,
        };
        let digest = match stated {
            Some(("sha256", bytes)) => bytes.try_into().ok().map(ActDigest::Sha256),
            Some(("sha384", bytes)) => bytes.try_into().ok().map(ActDigest::Sha384),
            _ => None,
        };
        let digest = digest.ok_or_else(|| wrong("it names no digest of an act"))?;
        Ok(Self {
            request: subject.name,
            policy: said.policy,
            approver: said.approver,
            reason: said.reason,
            nonce,
            decided: said.decided,
            expiry: said.expiry,
            suite,
            digest,
        })
    }

    /// True where this is exactly the act that was agreed to.
    ///
    /// # Errors
    /// As `Act::digest`.
    pub fn covers(&self, act: &Act) -> Result<bool> {
        let terms = Terms { policy: &self.policy, nonce: &self.nonce, expiry: self.expiry };
        Ok(act.digest(&terms, self.suite)? == self.digest)
    }

    /// The oversight request that was answered.
    pub fn request(&self) -> &str {
        &self.request
    }

    /// The policy that the agreement is for.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Who agreed.
    pub fn approver(&self) -> &str {
        &self.approver
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// When, in microseconds since the Unix epoch.
    pub fn decided(&self) -> u64 {
        self.decided
    }

    /// How long it is good, in microseconds since the Unix epoch.
    pub fn expiry(&self) -> u64 {
        self.expiry
    }

    /// The digest of the act.
    pub fn digest(&self) -> &ActDigest {
        &self.digest
    }
}

fn refusal(why: String) -> Error {
    Error::new(ErrorKind::Unauthorized).with_context(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Encoded;

    const NONCE: [u8; 16] = [9; 16];
    const APPROVER: &str = "spiffe://creto.local/approver/release-desk";

    fn act(amount: &str) -> Act {
        let context = Encoded::record([("amount".to_owned(), Encoded::integer(amount).unwrap())]).unwrap();
        Act::new("spiffe://creto.local/agent/a", &[0; 32], "tool:call", "send_money", context, &[]).unwrap()
    }

    fn signed(key: &SigningKey, answer: Answer) -> String {
        let terms = Terms { policy: "payments", nonce: &NONCE, expiry: 1_000 };
        let statement = Statement { request: "req", terms, approver: APPROVER, answer, reason: "looks right", decided: 10 };
        statement.sign(&act("5"), key).unwrap()
    }

    #[test]
    fn a_grant_holds_for_its_act_until_it_expires() {
        for suite in [Suite::Standard, Suite::Cnsa2] {
            let key = SigningKey::generate(suite).unwrap();
            let envelope = signed(&key, Answer::Approved);
            let grant = Grant::verify(&envelope, &act("5"), APPROVER, key.verifying_key(), 1_000).unwrap();
            assert_eq!((grant.policy(), grant.approver(), grant.reason(), grant.expiry()), ("payments", APPROVER, "looks right", 1_000));
            let late = Grant::verify(&envelope, &act("5"), APPROVER, key.verifying_key(), 1_001).unwrap_err();
            assert!(late.to_string().contains("has expired"), "{late}");
        }
    }

    #[test]
    fn an_edited_act_has_no_grant() {
        let key = SigningKey::generate(Suite::Standard).unwrap();
        let error = Grant::verify(&signed(&key, Answer::Approved), &act("6"), APPROVER, key.verifying_key(), 0).unwrap_err();
        assert!(error.to_string().contains("is for another act"), "{error}");
        assert_eq!(*error.kind(), ErrorKind::Unauthorized);
    }

    #[test]
    fn another_persons_key_another_name_and_a_denial_grant_nothing() {
        let (key, foreign) = (SigningKey::generate(Suite::Standard).unwrap(), SigningKey::generate(Suite::Standard).unwrap());
        let envelope = signed(&foreign, Answer::Approved);
        let error = Grant::verify(&envelope, &act("5"), APPROVER, key.verifying_key(), 0).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::SignatureVerificationFailed);
        assert!(Grant::verify(&envelope, &act("5"), "spiffe://creto.local/approver/reviewer", foreign.verifying_key(), 0).is_err());
        let denial = signed(&key, Answer::Denied);
        assert!(Grant::verify(&denial, &act("5"), APPROVER, key.verifying_key(), 0).is_err());
        assert!(Grant::verify_denial(&denial, &act("5"), APPROVER, key.verifying_key()).is_ok());
        assert!(Grant::verify_denial(&denial, &act("6"), APPROVER, key.verifying_key()).is_err());
    }

    #[test]
    fn a_signature_over_another_kind_of_statement_grants_nothing() {
        let key = SigningKey::generate(Suite::Standard).unwrap();
        let payload = br#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x","digest":{}}],"predicateType":"urn:other","predicate":{}}"#;
        let envelope = dsse::sign(&key, dsse::IN_TOTO, payload).unwrap();
        assert!(Grant::verify(&envelope, &act("5"), APPROVER, key.verifying_key(), 0).is_err());
    }
}
