//! Finding records: by agent, action, resource, time, outcome, act; over all of a shard, or what has come since.

use crate::encoding::{self, Field};
use crate::reader::Shard;
use crate::tile::WIDTH;
use creto_enablement_common::{AuditRecord, OutcomeRef, RecordKind, Result, Timestamp};
use std::collections::BTreeMap;

/// How an act ended, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was done.
    Success,
    /// It was not, or not wholly.
    Failure,
    /// It was refused before it began.
    Refused,
}

/// What is looked for; what is left open matches all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The acting agent, or a member of its delegation chain.
    pub agent: Option<String>,
    /// The action; `http:*` for all that begin so.
    pub action: Option<String>,
    /// The resource; a `*` at the end for all that begin so.
    pub resource: Option<String>,
    /// The act.
    pub act: Option<[u8; 16]>,
    /// The record.
    pub id: Option<[u8; 16]>,
    /// The moment of the act.
    pub kind: Option<RecordKind>,
    /// How it ended.
    pub outcome: Option<Ended>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Not at or after.
    pub until: Option<Timestamp>,
}

fn like(pattern: &str, text: &str) -> bool {
    pattern.strip_suffix('*').map_or_else(|| pattern == text, |start| text.starts_with(start))
}

impl Filter {
    /// True where the record is one that is looked for.
    ///
    /// # Errors
    /// `InvalidInput` where the bytes are no record.
    pub fn matches(&self, entry: &[u8]) -> Result<bool> {
        let mut fits = true;
        let mut agent = self.agent.is_none();
        let (mut refused, mut ended) = (false, None);
        encoding::walk(entry, |field| match field {
            Field::Who(text) | Field::Link(text) => agent = agent || self.agent.as_deref() == Some(text),
            Field::What(text) => fits &= self.action.as_deref().is_none_or(|pattern| like(pattern, text)),
            Field::Resource(text) => fits &= self.resource.as_deref().is_none_or(|pattern| like(pattern, text)),
            Field::Timestamp(at) => fits &= self.from.is_none_or(|from| at >= from) && self.until.is_none_or(|until| at < until),
            Field::Id(id) => fits &= self.id.is_none_or(|wanted| wanted == id),
            Field::Act(act) => fits &= self.act.is_none_or(|wanted| wanted == act),
            Field::Kind(kind) => {
                refused = kind == RecordKind::Refusal;
                fits &= self.kind.is_none_or(|wanted| wanted == kind);
            }
            Field::Outcome(OutcomeRef::Success) => ended = Some(Ended::Success),
            Field::Outcome(OutcomeRef::Failure(_)) => ended = Some(Ended::Failure),
            _ => {}
        })?;
        let ended = if refused { Some(Ended::Refused) } else { ended };
        Ok(fits && agent && self.outcome.is_none_or(|wanted| ended == Some(wanted)))
    }
}

/// A record with its place.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its index in the shard.
    pub index: u64,
    /// True where the latest checkpoint covers it.
    pub covered: bool,
    /// The record.
    pub record: AuditRecord,
}

/// The records of a shard that match, the latest `limit` of them, in order of index; those too that are on disk and no checkpoint covers yet.
///
/// # Errors
/// `Integrity` where a bundle or an acknowledged frame is damaged.
pub fn query(shard: &Shard, filter: &Filter, limit: usize) -> Result<Vec<Found>> {
    let size = shard.checkpoint()?.map_or(0, |(_, checkpoint)| checkpoint.size);
    let mut found: BTreeMap<u64, Found> = BTreeMap::new();
    let mut failed = Ok(());
    let take = |found: &mut BTreeMap<u64, Found>, index: u64, entry: &[u8]| -> Result<()> {
        if filter.matches(entry)? {
            found.insert(index, Found { index, covered: index < size, record: encoding::decode(entry)? });
        }
        Ok(())
    };
    shard.tail(size, |index, entry| {
        if failed.is_ok() {
            failed = take(&mut found, index, entry);
        }
    })?;
    failed?;
    let view = shard.at(size);
    let mut end = size;
    while end > 0 && found.len() < limit {
        let start = (end - 1) / WIDTH * WIDTH;
        view.each_entry(start, end, |index, entry| take(&mut found, index, entry))?;
        end = start;
    }
    while found.len() > limit {
        found.pop_first();
    }
    Ok(found.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_at_the_end_stands_for_anything() {
        assert!(like("http:*", "http:get") && like("*", "x") && like("http:get", "http:get"));
        assert!(!like("http:*", "net:connect") && !like("http:get", "http:get2"));
    }
}
