//! Values written in one order, so that sets compare in the time that sorting takes, however they nest.
//!
//! Member by member, two sets compare in quadratic time, and every level of nesting doubles it: a context, or the text of another agent, could
//! keep one check busy for hours. What is short and flat is compared that way all the same, since it costs no allocation.

use crate::entities::Entities;
use crate::extension::Ext;
use crate::value::{Ent, RecordVal, SetVal, Val};

/// How many comparisons of members cost less than sorting does.
const FEW: usize = 128;

/// A value that is equal to another where the values that it was made from are.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Canonical<'a> {
    Bool(bool),
    Long(i64),
    Str(&'a str),
    Known(u32),
    Named(&'a str, &'a str),
    Ext(Ext),
    Set(Vec<Canonical<'a>>),
    Record(Vec<(&'a str, Canonical<'a>)>),
}

impl<'a> Canonical<'a> {
    /// None where a part of it is no value.
    pub fn of(value: &Val<'a>, entities: &Entities) -> Option<Self> {
        Some(match value {
            Val::Bool(b) => Self::Bool(*b),
            Val::Long(n) => Self::Long(*n),
            Val::Str(text) => Self::Str(text),
            Val::Ent(ent) => match (entities.number(*ent), *ent) {
                (Some(number), _) | (None, Ent::Known(number)) => Self::Known(number),
                (None, Ent::Named(kind, id)) => Self::Named(kind, id),
            },
            Val::Ext(ext) => Self::Ext(*ext),
            Val::Set(set) => Self::Set(Self::members(set, entities)?),
            Val::Record(record) => {
                let field = |at| {
                    let (name, value) = record.at(at)?;
                    Some((name, Self::of(&value.ok()?, entities)?))
                };
                let mut fields = (0..record.len()).map(field).collect::<Option<Vec<_>>>()?;
                fields.sort_unstable();
                Self::Record(fields)
            }
        })
    }

    /// The members of a set, sorted, each once.
    pub fn members(set: &SetVal<'a>, entities: &Entities) -> Option<Vec<Self>> {
        let mut members = (0..set.len()).map(|at| Self::of(&set.at(at)?.ok()?, entities)).collect::<Option<Vec<_>>>()?;
        members.sort_unstable();
        members.dedup();
        Some(members)
    }
}

/// Whether two sets are compared at once member by member.
pub fn few(a: &SetVal<'_>, b: &SetVal<'_>) -> bool {
    let flat = |set: &SetVal<'_>| (0..set.len()).all(|at| matches!(set.at(at), Some(Ok(member)) if is_flat(&member)));
    a.len().saturating_mul(b.len()) <= FEW && flat(a) && flat(b)
}

/// Whether two records are compared at once field by field: what they hold is compared on its own.
pub fn few_fields(a: &RecordVal<'_>, b: &RecordVal<'_>) -> bool {
    a.len().saturating_mul(b.len()) <= FEW
}

/// Whether a value holds no others.
pub fn is_flat(value: &Val<'_>) -> bool {
    !matches!(value, Val::Set(_) | Val::Record(_))
}
