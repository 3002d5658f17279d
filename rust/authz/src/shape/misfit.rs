//! Which part of a context does not fit what the schema declares for its action, in words.

use super::{Action, Record, Shape, Shapes};
use crate::entities::Entities;
use cedar_policy_core::fuzzy_match::fuzzy_search_limited;
use creto_enablement_common::{Fields, Value as Asked};

/// Of names that differ in more letters than this, none is taken for the other misspelt.
const SLIPS: usize = 3;
/// Letters of a name that is compared with others: that takes the product of their lengths.
const LONGEST: usize = 100;

/// `; did you mean ...?` where one of the names is near.
pub fn nearest(name: &str, known: &[impl AsRef<str>]) -> String {
    let found = (name.len() <= LONGEST).then(|| fuzzy_search_limited(name, known, Some(SLIPS))).flatten();
    found.map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

impl Shapes {
    /// The first part of a context that does not fit; none where that is more than a matter of names and types.
    pub fn misfit(&self, action: &Action, context: Fields<'_>, entities: &Entities) -> Option<String> {
        self.record_misfit("context", &action.context, context, entities)
    }

    fn record_misfit(&self, path: &str, record: &Record, given: Fields<'_>, entities: &Entities) -> Option<String> {
        for (name, value) in given {
            match record.fields.iter().find(|field| *field.name == **name) {
                Some(field) => {
                    if let Some(why) = self.value_misfit(&format!("{path}.{name}"), &field.shape, value, entities) {
                        return Some(why);
                    }
                }
                None if record.open => {}
                None => {
                    let known: Vec<_> = record.fields.iter().map(|field| &field.name).collect();
                    return Some(format!("the schema declares no `{path}.{name}`{}", nearest(name, &known)));
                }
            }
        }
        let missing = |field: &&super::Field| field.required && given.iter().all(|(name, _)| **name != *field.name);
        let field = record.fields.iter().find(missing)?;
        Some(format!("`{path}.{}` ({}) is missing", field.name, declared(&field.shape, entities)))
    }

    fn value_misfit(&self, path: &str, shape: &Shape, value: &Asked<'_>, entities: &Entities) -> Option<String> {
        if self.value_fits(shape, value, entities) {
            return None;
        }
        match (shape, value) {
            (Shape::Record(record), Asked::Record(fields)) => self.record_misfit(path, record, fields, entities),
            (Shape::Set(Some(member)), Asked::Set(items)) => {
                items.iter().find_map(|item| self.value_misfit(&format!("{path}[]"), member, item, entities))
            }
            (Shape::Extension(wanted), Asked::Extension(name, text)) if wanted == name => {
                Some(format!("`{path}`: `{text}` is no {}", declared(shape, entities)))
            }
            _ => {
                let (given, wanted) = (given(value), declared(shape, entities));
                // Of the right type, and yet it does not fit: cedar-policy has words for that.
                (given != wanted).then(|| format!("`{path}` is {given} where the schema has {wanted}"))
            }
        }
    }
}

fn given(value: &Asked<'_>) -> String {
    let name = match value {
        Asked::Bool(_) => "Bool",
        Asked::Long(_) => "Long",
        Asked::Str(_) => "String",
        Asked::Entity(kind, _) => kind,
        Asked::Extension("ip", _) => "ipaddr",
        Asked::Extension(name, _) => name,
        Asked::Set(_) => "Set",
        Asked::Record(_) => "Record",
    };
    name.to_owned()
}

fn declared(shape: &Shape, entities: &Entities) -> String {
    match shape {
        Shape::Never => "a type that no value has".to_owned(),
        Shape::Bool(_) => "Bool".to_owned(),
        Shape::Long => "Long".to_owned(),
        Shape::Text => "String".to_owned(),
        Shape::Entity(kinds) => {
            let names: Vec<&str> = kinds.iter().filter_map(|kind| entities.types().name(*kind)).collect();
            names.join(" or ")
        }
        Shape::AnyEntity => "an entity".to_owned(),
        Shape::Set(_) => "Set".to_owned(),
        Shape::Record(_) => "Record".to_owned(),
        Shape::Extension("ip") => "ipaddr".to_owned(),
        Shape::Extension(name) => (*name).to_owned(),
    }
}
