//! Whether a context can be that of any request: not too large, no name twice, every value of its form.

use crate::limits::Limits;
use crate::reference;
use crate::value::Val;
use creto_enablement_common::{Error, Fields, Result, Value};
use foldhash::quality::RandomState;
use hashbrown::HashSet;

/// How many names are compared with each other; more are looked up in a table.
const FEW: usize = 32;

/// Refuses a context that no request can have: one that is too large, a name that stands twice, or a value of no valid form.
pub fn readable(context: Fields<'_>) -> Result<()> {
    if !fits_bounds(context) {
        return Err(too_large());
    }
    if let Some(name) = named_twice(context) {
        return Err(Error::invalid(format!("the context names `{name}` twice")));
    }
    context.iter().try_for_each(|(name, value)| readable_value(name, value, 0))
}

/// Whether names and values together are no more than a context may be.
#[inline]
pub fn fits_bounds(context: Fields<'_>) -> bool {
    bytes(context) <= Limits::DEFAULT.context_bytes
}

fn too_large() -> Error {
    Error::invalid(format!("the context is larger than {} bytes", Limits::DEFAULT.context_bytes))
}

#[inline]
fn bytes(fields: Fields<'_>) -> usize {
    fields.iter().fold(0_usize, |sum, (name, value)| sum.saturating_add(name.len()).saturating_add(bytes_of(value)))
}

#[inline]
fn bytes_of(value: &Value<'_>) -> usize {
    match value {
        Value::Str(text) => text.len(),
        Value::Bool(_) | Value::Long(_) => 8,
        other => other_bytes(other),
    }
}

fn other_bytes(value: &Value<'_>) -> usize {
    match value {
        Value::Entity(first, second) | Value::Extension(first, second) => first.len() + second.len(),
        // A member takes its place, so that a set of empty texts is not nothing.
        Value::Set(items) => items.iter().fold(0_usize, |sum, item| sum.saturating_add(8).saturating_add(bytes_of(item))),
        Value::Record(fields) => bytes(fields),
        flat => bytes_of(flat),
    }
}

fn named_twice<'a>(fields: Fields<'a>) -> Option<&'a str> {
    if fields.len() > FEW {
        let mut seen = HashSet::with_capacity_and_hasher(fields.len(), RandomState::default());
        return fields.iter().map(|(name, _)| *name).find(|name| !seen.insert(*name));
    }
    fields.iter().enumerate().map(|(at, (name, _))| (at, *name)).find_map(|(at, name)| {
        let before = fields.iter().take(at).any(|(other, _)| *other == name);
        before.then_some(name)
    })
}

fn readable_value(name: &str, value: &Value<'_>, depth: usize) -> Result<()> {
    if depth > Limits::DEFAULT.nesting {
        return Err(Error::invalid(format!("the context's `{name}` is nested deeper than {}", Limits::DEFAULT.nesting)));
    }
    match value {
        Value::Extension(..) if Val::asked(value).is_err() => {
            Err(Error::invalid(format!("the context's `{name}` is not of its extension's form")))
        }
        Value::Entity(kind, _) => reference::entity_type(kind).map(drop),
        Value::Set(items) => items.iter().try_for_each(|item| readable_value(name, item, depth + 1)),
        Value::Record(fields) => match named_twice(fields) {
            Some(inner) => Err(Error::invalid(format!("the context's `{name}` names `{inner}` twice"))),
            None => fields.iter().try_for_each(|(inner, value)| readable_value(inner, value, depth + 1)),
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(context: Fields<'_>) -> String {
        readable(context).unwrap_err().to_string()
    }

    #[test]
    fn a_context_is_at_most_a_mebibyte_whatever_it_is_made_of() {
        let most = Limits::DEFAULT.context_bytes;
        let text = "x".repeat(most);
        assert!(readable(&[("a", Value::Str(&text[1..]))]).is_ok());
        let longs = vec![Value::Long(1); most / 16 + 1];
        let empties = vec![Value::Str(""); most / 8 + 1];
        let halves = [("a", Value::Str(&text[..most / 2])), ("b", Value::Str(&text[..most / 2]))];
        for context in [&[("a", Value::Str(&text))][..], &[("a", Value::Set(&longs))], &[("a", Value::Set(&empties))], &halves] {
            assert!(told(context).contains("the context is larger than 1048576 bytes"));
        }
        assert!(told(&[("r", Value::Record(&halves))]).contains("larger"));
    }

    #[test]
    fn a_name_stands_once_however_many_there_are() {
        let names: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
        for count in [2, FEW, FEW + 1, 5_000] {
            let mut fields: Vec<(&str, Value<'_>)> = names[..count].iter().map(|name| (name.as_str(), Value::Bool(true))).collect();
            assert!(readable(&fields).is_ok());
            assert!(readable(&[("r", Value::Record(&fields))]).is_ok());
            fields.push(("1", Value::Long(1)));
            assert!(told(&fields).contains("names `1` twice"), "{count}");
            assert!(told(&[("r", Value::Record(&fields))]).contains("`r` names `1` twice"), "{count}");
        }
    }

    #[test]
    fn an_entity_has_a_type_that_cedar_can_read() {
        for kind in ["", "in", "A::if", "A::", "1", "A B", " A", "__cedar::A"] {
            assert!(told(&[("e", Value::Set(&[Value::Entity(kind, "x")]))]).contains("is not an entity type"), "{kind}");
        }
        assert!(readable(&[("e", Value::Entity("A::B", "x"))]).is_ok());
    }
}
