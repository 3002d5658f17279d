//! in-toto Statements about one subject: the payload of everything that an authority or an agent signs here.

use creto_crypto::Error;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// A statement; read, it borrows its text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement<'a, P> {
    #[serde(rename = "_type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    subject: [Subject<'a>; 1],
    #[serde(rename = "predicateType", borrow)]
    predicate_type: Cow<'a, str>,
    /// What is said of the subject.
    pub predicate: P,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    digest: Digest<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Digest<'a> {
    #[serde(borrow)]
    sha256: Cow<'a, str>,
}

impl<'a, P: Serialize> Statement<'a, P> {
    /// The bytes of a statement about a subject: an agent's name, and the fingerprint of its keys.
    pub fn encode(predicate_type: &str, name: &str, sha256: &str, predicate: P) -> Result<Vec<u8>, Error> {
        let subject = [Subject { name: name.into(), digest: Digest { sha256: sha256.into() } }];
        let statement = Statement { kind: STATEMENT.into(), subject, predicate_type: predicate_type.into(), predicate };
        serde_json::to_vec(&statement).map_err(|error| Error::Malformed(error.to_string()))
    }
}

impl<'a, P: Deserialize<'a>> Statement<'a, P> {
    /// Reads a statement that must be of this type.
    pub fn read(payload: &'a [u8], predicate_type: &str) -> Result<Self, String> {
        let statement: Self =
            serde_json::from_slice(payload).map_err(|error| format!("it is not a statement as expected here: {error}"))?;
        if statement.kind != STATEMENT || statement.predicate_type != predicate_type {
            return Err(format!("it is a statement of another kind, `{}`", statement.predicate_type));
        }
        Ok(statement)
    }

    /// Whom it is about.
    pub fn name(&self) -> &str {
        let [subject] = &self.subject;
        &subject.name
    }

    /// The fingerprint of the subject's keys.
    pub fn fingerprint(&self) -> &str {
        let [subject] = &self.subject;
        &subject.digest.sha256
    }
}
