//! What an index over records holds of one: numbers in place of what was written, so that no text grows the index but the few that are looked
//! for by how they begin. Whoever finds a record by them reads it and compares, so two texts of one number cost a look, never a wrong answer.

use crate::encoding::{self, Field};
use creto_enablement_common::{OutcomeRef, RecordKind, Result};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;

/// The name in a record's detail under which the pseudonym of the person stands whom it is about.
const SUBJECT: &str = "subject";
/// How many texts are known as handed out before; past that they are handed out again.
const KNOWN: usize = 100_000;

/// The number of a text or an id: the first 8 bytes of its SHA-256, so that it is the same in every process and release.
pub fn number(bytes: &[u8]) -> i64 {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    hash.first_chunk::<8>().map_or(0, |head| i64::from_be_bytes(*head))
}

/// A timestamp's word as a signed number of the same order.
pub const fn signed(word: u64) -> i64 {
    (word ^ (1 << 63)) as i64
}

/// The terms of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When, as `signed`.
    pub time: i64,
    /// The action.
    pub what: i64,
    /// The resource.
    pub resource: i64,
    /// The act.
    pub act: i64,
    /// The record.
    pub id: i64,
    /// 0 intent, 1 outcome, 2 refusal, 3 event.
    pub kind: u8,
    /// 0 not ended, 1 success, 2 failure, 3 refused.
    pub ended: u8,
    /// Whom it is about, by pseudonym.
    pub subject: Option<i64>,
    /// Who acts, and the members of the delegation chain.
    pub parties: Vec<i64>,
}

/// Reads terms from records, and gives the text of each action and resource once.
#[derive(Default)]
pub struct Reading {
    known: HashSet<i64>,
    /// Texts that were not handed out before, with their numbers.
    pub texts: Vec<(i64, String)>,
}

impl Reading {
    fn text(&mut self, text: &str) -> i64 {
        let number = number(text.as_bytes());
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        if self.known.insert(number) {
            self.texts.push((number, text.to_owned()));
        }
        number
    }

    /// The terms of a record.
    ///
    /// # Errors
    /// `InvalidInput` where the bytes are no record.
    pub fn terms(&mut self, entry: &[u8]) -> Result<Terms> {
        let mut terms = Terms::default();
        encoding::walk(entry, |field| match field {
            Field::Who(text) | Field::Link(text) => {
                let party = number(text.as_bytes());
                if !terms.parties.contains(&party) {
                    terms.parties.push(party);
                }
            }
            Field::What(text) => terms.what = self.text(text),
            Field::Resource(text) => terms.resource = self.text(text),
            Field::Timestamp(at) => terms.time = signed(at.word()),
            Field::Id(id) => terms.id = number(&id),
            Field::Act(act) => terms.act = number(&act),
            Field::Kind(kind) => {
                (terms.kind, terms.ended) = match kind {
                    RecordKind::Intent => (0, terms.ended),
                    RecordKind::Outcome => (1, terms.ended),
                    RecordKind::Refusal => (2, 3),
                    _ => (3, terms.ended),
                }
            }
            Field::Outcome(OutcomeRef::Success) => terms.ended = 1,
            Field::Outcome(OutcomeRef::Failure(_)) => terms.ended = 2,
            Field::Detail(SUBJECT, pseudonym) => terms.subject = Some(number(pseudonym.as_bytes())),
            _ => {}
        })?;
        Ok(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use creto_enablement_common::{AuditRecord, Outcome, Timestamp};

    #[test]
    fn a_text_is_handed_out_once_and_a_refusal_is_refused_whatever_else_it_says() {
        let record = AuditRecord {
            who: "w".into(),
            delegation_chain: vec!["w".into(), "lead".into()],
            what: "a:b".into(),
            resource: "r".into(),
            why: String::new(),
            outcome: Some(Outcome::Failure("no".into())),
            timestamp: Timestamp::from_word(7),
            signature: Vec::new(),
            id: [1; 16],
            act: [2; 16],
            kind: RecordKind::Refusal,
            digest: None,
            policy: None,
            usage: Vec::new(),
            detail: vec![("subject".into(), "p".into())],
        };
        let mut bytes = Vec::new();
        encoding::borrowed(&record, |record| encoding::encode(record, &mut bytes));
        let mut reading = Reading::default();
        let terms = reading.terms(&bytes).unwrap();
        assert_eq!((terms.kind, terms.ended, terms.time), (2, 3, signed(7)));
        assert_eq!(terms.parties, [number(b"w"), number(b"lead")]);
        assert_eq!(terms.subject, Some(number(b"p")));
        assert_eq!(reading.texts, [(number(b"a:b"), "a:b".to_owned()), (number(b"r"), "r".to_owned())]);
        reading.terms(&bytes).unwrap();
        assert_eq!(reading.texts.len(), 2);
        assert!(signed(1) < signed(u64::MAX) && signed(0) < signed(1));
        assert!(reading.terms(b"no record").is_err());
    }
}
