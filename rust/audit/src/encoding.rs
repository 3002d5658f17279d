//! A record as bytes: the leaf of the tree. Version 1, deterministic, never changed; a later version gets another number.
//!
//! A CBOR map with small integer keys in ascending order; what is empty or absent is left out. The specification's fields come first.

use crate::cbor::{self, ARRAY, MAP, Reader, UNSIGNED};
use creto_enablement_common::{AuditRecord, Digest, Error, Outcome, OutcomeRef, RecordKind, RecordRef, Result, Timestamp};

/// The version that is written.
pub const VERSION: u64 = 1;
/// No record is longer: an entry bundle gives each a 16-bit length.
pub const MAX_RECORD: usize = 65_535;

const K_VERSION: u64 = 0;
const K_WHO: u64 = 1;
const K_CHAIN: u64 = 2;
const K_WHAT: u64 = 3;
const K_RESOURCE: u64 = 4;
const K_WHY: u64 = 5;
const K_OUTCOME: u64 = 6;
const K_TIMESTAMP: u64 = 7;
const K_ID: u64 = 9;
const K_ACT: u64 = 10;
const K_KIND: u64 = 11;
const K_DIGEST: u64 = 12;
const K_POLICY: u64 = 13;
const K_USAGE: u64 = 14;
const K_DETAIL: u64 = 15;

const fn kind_number(kind: RecordKind) -> u64 {
    match kind {
        RecordKind::Intent => 0,
        RecordKind::Outcome => 1,
        RecordKind::Refusal => 2,
        // The enumeration may grow; what this version has no number for is an event.
        _ => 3,
    }
}

fn key(out: &mut Vec<u8>, key: u64) {
    cbor::head(out, UNSIGNED, key);
}

/// Appends the bytes of a record; allocates nothing where `out` has room.
pub fn encode(record: &RecordRef<'_>, out: &mut Vec<u8>) {
    let present = 8
        + u64::from(!record.delegation_chain.is_empty())
        + u64::from(!record.why.is_empty())
        + u64::from(record.outcome.is_some())
        + u64::from(record.digest.is_some())
        + u64::from(record.policy.is_some())
        + u64::from(!record.usage.is_empty())
        + u64::from(!record.detail.is_empty());
    cbor::head(out, MAP, present);
    key(out, K_VERSION);
    cbor::head(out, UNSIGNED, VERSION);
    key(out, K_WHO);
    cbor::text(out, record.who);
    if !record.delegation_chain.is_empty() {
        key(out, K_CHAIN);
        cbor::head(out, ARRAY, record.delegation_chain.len() as u64);
        for link in record.delegation_chain {
            cbor::text(out, link);
        }
    }
    key(out, K_WHAT);
    cbor::text(out, record.what);
    key(out, K_RESOURCE);
    cbor::text(out, record.resource);
    if !record.why.is_empty() {
        key(out, K_WHY);
        cbor::text(out, record.why);
    }
    match record.outcome {
        None => {}
        Some(OutcomeRef::Success) => {
            key(out, K_OUTCOME);
            cbor::yes(out);
        }
        Some(OutcomeRef::Failure(why)) => {
            key(out, K_OUTCOME);
            cbor::text(out, why);
        }
    }
    key(out, K_TIMESTAMP);
    cbor::head(out, UNSIGNED, record.timestamp.word());
    key(out, K_ID);
    cbor::bytes(out, &record.id);
    key(out, K_ACT);
    cbor::bytes(out, &record.act);
    key(out, K_KIND);
    cbor::head(out, UNSIGNED, kind_number(record.kind));
    for (name, digest) in [(K_DIGEST, record.digest), (K_POLICY, record.policy)] {
        if let Some(digest) = digest {
            key(out, name);
            cbor::bytes(out, digest);
        }
    }
    if !record.usage.is_empty() {
        key(out, K_USAGE);
        cbor::head(out, ARRAY, 2 * record.usage.len() as u64);
        for (meter, quantity) in record.usage {
            cbor::text(out, meter);
            cbor::head(out, UNSIGNED, *quantity);
        }
    }
    if !record.detail.is_empty() {
        key(out, K_DETAIL);
        cbor::head(out, ARRAY, 2 * record.detail.len() as u64);
        for (name, value) in record.detail {
            cbor::text(out, name);
            cbor::text(out, value);
        }
    }
}

/// One field, or one element of a list, as it is met in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the fields of `AuditRecord`")]
pub enum Field<'a> {
    Who(&'a str),
    Link(&'a str),
    What(&'a str),
    Resource(&'a str),
    Why(&'a str),
    Outcome(OutcomeRef<'a>),
    Timestamp(Timestamp),
    Id([u8; 16]),
    Act([u8; 16]),
    Kind(RecordKind),
    Digest(Digest),
    Policy(Digest),
    Usage(&'a str, u64),
    Detail(&'a str, &'a str),
}

/// Reads the bytes of a record, field by field, allocating nothing.
///
/// # Errors
/// `InvalidInput` for bytes that `encode` cannot have made: what is read always encodes to the same bytes.
pub fn walk<'a>(bytes: &'a [u8], mut each: impl FnMut(Field<'a>)) -> Result<()> {
    let mut reader = Reader::new(bytes);
    let mut seen = 0_u32;
    let mut next = K_VERSION;
    for _ in 0..reader.count(MAP)? {
        let name = reader.head(UNSIGNED)?;
        if name < next || name > K_DETAIL {
            return Err(Error::invalid(format!("field {name} is out of order or not of version {VERSION}")));
        }
        next = name + 1;
        seen |= 1 << name;
        match name {
            K_VERSION => match reader.head(UNSIGNED)? {
                VERSION => {}
                other => return Err(Error::invalid(format!("a record of version {other}; this release reads version {VERSION}"))),
            },
            K_WHO => each(Field::Who(reader.text()?)),
            K_CHAIN => {
                for _ in 0..filled(reader.count(ARRAY)?)? {
                    each(Field::Link(reader.text()?));
                }
            }
            K_WHAT => each(Field::What(reader.text()?)),
            K_RESOURCE => each(Field::Resource(reader.text()?)),
            K_WHY => {
                let why = reader.text()?;
                filled(why.len())?;
                each(Field::Why(why));
            }
            K_OUTCOME => each(Field::Outcome(if reader.yes() { OutcomeRef::Success } else { OutcomeRef::Failure(reader.text()?) })),
            K_TIMESTAMP => each(Field::Timestamp(Timestamp::from_word(reader.head(UNSIGNED)?))),
            K_ID => each(Field::Id(reader.fixed()?)),
            K_ACT => each(Field::Act(reader.fixed()?)),
            K_KIND => each(Field::Kind(match reader.head(UNSIGNED)? {
                0 => RecordKind::Intent,
                1 => RecordKind::Outcome,
                2 => RecordKind::Refusal,
                3 => RecordKind::Event,
                other => return Err(Error::invalid(format!("kind {other} is not of version {VERSION}"))),
            })),
            K_DIGEST => each(Field::Digest(reader.fixed()?)),
            K_POLICY => each(Field::Policy(reader.fixed()?)),
            K_USAGE => {
                for _ in 0..half(reader.count(ARRAY)?)? {
                    let meter = reader.text()?;
                    each(Field::Usage(meter, reader.head(UNSIGNED)?));
                }
            }
            K_DETAIL => {
                for _ in 0..half(reader.count(ARRAY)?)? {
                    let name = reader.text()?;
                    each(Field::Detail(name, reader.text()?));
                }
            }
            _ => return Err(Error::invalid(format!("field {name} is not of version {VERSION}"))),
        }
    }
    let needed = [K_VERSION, K_WHO, K_WHAT, K_RESOURCE, K_TIMESTAMP, K_ID, K_ACT, K_KIND].iter().fold(0_u32, |all, k| all | 1 << k);
    if seen & needed != needed {
        return Err(Error::invalid("a field that every record has is missing"));
    }
    if !reader.is_empty() {
        return Err(Error::invalid("there is more after the record"));
    }
    Ok(())
}

fn filled(count: usize) -> Result<usize> {
    if count == 0 { Err(Error::invalid("an empty field is written")) } else { Ok(count) }
}

fn half(count: usize) -> Result<usize> {
    if filled(count)?.is_multiple_of(2) { Ok(count / 2) } else { Err(Error::invalid("a name lacks its value")) }
}

/// Reads the bytes of a record; `signature` stays empty.
///
/// # Errors
/// As `walk`.
pub fn decode(bytes: &[u8]) -> Result<AuditRecord> {
    let mut record = AuditRecord {
        who: String::new(),
        delegation_chain: Vec::new(),
        what: String::new(),
        resource: String::new(),
        why: String::new(),
        outcome: None,
        timestamp: Timestamp::default(),
        signature: Vec::new(),
        id: [0; 16],
        act: [0; 16],
        kind: RecordKind::Event,
        digest: None,
        policy: None,
        usage: Vec::new(),
        detail: Vec::new(),
    };
    walk(bytes, |field| match field {
        Field::Who(text) => text.clone_into(&mut record.who),
        Field::Link(text) => record.delegation_chain.push(text.to_owned()),
        Field::What(text) => text.clone_into(&mut record.what),
        Field::Resource(text) => text.clone_into(&mut record.resource),
        Field::Why(text) => text.clone_into(&mut record.why),
        Field::Outcome(OutcomeRef::Success) => record.outcome = Some(Outcome::Success),
        Field::Outcome(OutcomeRef::Failure(why)) => record.outcome = Some(Outcome::Failure(why.to_owned())),
        Field::Timestamp(timestamp) => record.timestamp = timestamp,
        Field::Id(id) => record.id = id,
        Field::Act(act) => record.act = act,
        Field::Kind(kind) => record.kind = kind,
        Field::Digest(digest) => record.digest = Some(digest),
        Field::Policy(digest) => record.policy = Some(digest),
        Field::Usage(meter, quantity) => record.usage.push((meter.to_owned(), quantity)),
        Field::Detail(name, value) => record.detail.push((name.to_owned(), value.to_owned())),
    })?;
    Ok(record)
}

/// Checks that bytes are a record.
///
/// # Errors
/// As `walk`.
pub fn check(bytes: &[u8]) -> Result<()> {
    walk(bytes, |_| {})
}

/// Calls `use_it` with the record borrowed, as an append takes it.
pub fn borrowed<T>(record: &AuditRecord, use_it: impl FnOnce(&RecordRef<'_>) -> T) -> T {
    let chain: Vec<&str> = record.delegation_chain.iter().map(String::as_str).collect();
    let usage: Vec<(&str, u64)> = record.usage.iter().map(|(meter, quantity)| (meter.as_str(), *quantity)).collect();
    let detail: Vec<(&str, &str)> = record.detail.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    use_it(&RecordRef {
        who: &record.who,
        delegation_chain: &chain,
        what: &record.what,
        resource: &record.resource,
        why: &record.why,
        outcome: record.outcome.as_ref().map(|outcome| match outcome {
            Outcome::Success => OutcomeRef::Success,
            Outcome::Failure(why) => OutcomeRef::Failure(why),
        }),
        timestamp: record.timestamp,
        id: record.id,
        act: record.act,
        kind: record.kind,
        digest: record.digest.as_ref(),
        policy: record.policy.as_ref(),
        usage: &usage,
        detail: &detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = AuditRecord> {
        let words = (".{0,30}", vec(".{0,20}", 0..4), ".{0,20}", ".{0,40}", ".{0,30}");
        let outcome = option::of(prop_oneof![Just(Outcome::Success), ".{0,20}".prop_map(Outcome::Failure)]);
        let kinds = prop_oneof![Just(RecordKind::Intent), Just(RecordKind::Outcome), Just(RecordKind::Refusal), Just(RecordKind::Event)];
        let rest =
            (any::<u64>(), any::<[u8; 16]>(), any::<[u8; 16]>(), kinds, option::of(any::<[u8; 32]>()), option::of(any::<[u8; 32]>()));
        let maps = (vec((".{0,9}", any::<u64>()), 0..4), vec((".{0,9}", ".{0,9}"), 0..4));
        (words, outcome, rest, maps).prop_map(|((who, chain, what, resource, why), outcome, rest, (usage, detail))| AuditRecord {
            who,
            delegation_chain: chain,
            what,
            resource,
            why,
            outcome,
            timestamp: Timestamp::from_word(rest.0),
            signature: Vec::new(),
            id: rest.1,
            act: rest.2,
            kind: rest.3,
            digest: rest.4,
            policy: rest.5,
            usage,
            detail,
        })
    }

    fn bytes_of(record: &AuditRecord) -> Vec<u8> {
        let mut out = Vec::new();
        borrowed(record, |r| encode(r, &mut out));
        out
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(record in record()) {
            prop_assert_eq!(decode(&bytes_of(&record)).unwrap(), record);
        }

        #[test]
        fn bytes_are_refused_or_are_the_only_bytes_of_their_record(record in record(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut bytes = bytes_of(&record);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(other) = decode(&bytes) {
                prop_assert_eq!(bytes_of(&other), bytes);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_record_cut_short_is_refused(record in record(), at in any::<prop::sample::Index>()) {
            let bytes = bytes_of(&record);
            prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
        }
    }
}
