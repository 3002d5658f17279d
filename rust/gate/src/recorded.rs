//! Circumstances that the schema wants on record, `@record("change, bytes")` on an action: small values, as JSON, beside the act.
//!
//! Every listed name is there, in the schema's order, `null` where the act did not say; so a reader knows that it knows. A value that is too long is named instead.

use creto_enablement_common::{Fields, Value};
use serde_json::{Value as Json, json};

/// The longest text of one value.
const LONGEST: usize = 256;
/// The usual length of one value with its name.
const USUAL: usize = 32;

/// What is put on record of a context: the values, and the names of those that are too long.
pub(crate) struct Recorded {
    pub(crate) values: String,
    pub(crate) left_out: Option<Box<str>>,
}

impl Recorded {
    /// As parts of a record.
    pub(crate) fn details(&self) -> impl Iterator<Item = (&str, &str)> {
        [("context", &*self.values)].into_iter().chain(self.left_out.as_deref().map(|names| ("context_left_out", names)))
    }
}

/// Written straight as text: nearly all that is listed is absent or short, and every act of such an action pays for it.
pub(crate) fn recorded(names: &[Box<str>], context: Fields<'_>) -> Recorded {
    // Room for what is usual, so that it is not moved while it grows.
    let (mut values, mut left_out) = (Vec::with_capacity(names.len() * USUAL), Vec::new());
    values.push(b'{');
    for (at, name) in names.iter().enumerate() {
        if names.iter().take(at).any(|known| known == name) {
            continue;
        }
        let before = values.len();
        if before > 1 {
            values.push(b',');
        }
        let named = serde_json::to_writer(&mut values, &**name);
        values.push(b':');
        let start = values.len();
        let said = match context.iter().find(|(given, _)| *given == &**name) {
            None => serde_json::to_writer(&mut values, &Json::Null),
            Some((_, value)) => serde_json::to_writer(&mut values, &written(value)),
        };
        if named.and(said).is_err() || values.len() - start > LONGEST {
            values.truncate(before);
            left_out.push(&**name);
        }
    }
    values.push(b'}');
    Recorded { values: String::from_utf8(values).unwrap_or_default(), left_out: (!left_out.is_empty()).then(|| left_out.join(", ").into()) }
}

fn written(value: &Value<'_>) -> Json {
    match value {
        Value::Bool(b) => json!(b),
        Value::Long(n) => json!(n),
        Value::Str(text) => json!(text),
        Value::Entity(kind, id) => json!({"__entity": {"type": kind, "id": id}}),
        Value::Extension(name, text) => json!({"__extn": {"fn": name, "arg": text}}),
        Value::Set(items) => Json::Array(items.iter().map(written).collect()),
        Value::Record(fields) => Json::Object(fields.iter().map(|(name, value)| ((*name).to_owned(), written(value))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_is_recorded_and_a_value_that_is_too_long_is_named() {
        let names: Vec<Box<str>> = ["note", "amount", "to", "amount", "absent"].into_iter().map(Box::from).collect();
        let long = "x".repeat(300);
        let context = [
            ("amount", Value::Extension("decimal", "2.50")),
            ("to", Value::Str("DE02")),
            ("note", Value::Str(&long)),
            ("iban", Value::Bool(true)),
        ];
        let recorded = recorded(&names, &context);
        assert_eq!(&*recorded.values, r#"{"amount":{"__extn":{"fn":"decimal","arg":"2.50"}},"to":"DE02","absent":null}"#);
        assert_eq!(recorded.left_out.as_deref(), Some("note"));
    }
}
