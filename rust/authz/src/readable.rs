//! Whether a context can be that of any request: no name twice, and every extension value of its form.

use crate::limits::Limits;
use crate::value::Val;
use creto_enablement_common::{Error, Fields, Result, Value};

/// Refuses a context that no request can have: a name that stands twice, or an extension value of no valid form.
pub fn readable(context: Fields<'_>) -> Result<()> {
    for (at, (name, value)) in context.iter().enumerate() {
        if context.iter().take(at).any(|(other, _)| other == name) {
            return Err(Error::invalid(format!("the context names `{name}` twice")));
        }
        readable_value(name, value, 0)?;
    }
    Ok(())
}

fn readable_value(name: &str, value: &Value<'_>, depth: usize) -> Result<()> {
    if depth > Limits::DEFAULT.nesting {
        return Err(Error::invalid(format!("the context's `{name}` is nested deeper than {}", Limits::DEFAULT.nesting)));
    }
    match value {
        Value::Extension(..) if Val::asked(value).is_err() => {
            Err(Error::invalid(format!("the context's `{name}` is not of its extension's form")))
        }
        Value::Set(items) => items.iter().try_for_each(|item| readable_value(name, item, depth + 1)),
        Value::Record(fields) => fields.iter().enumerate().try_for_each(|(at, (inner, value))| {
            if fields.iter().take(at).any(|(other, _)| other == inner) {
                return Err(Error::invalid(format!("the context's `{name}` names `{inner}` twice")));
            }
            readable_value(inner, value, depth + 1)
        }),
        _ => Ok(()),
    }
}
