//! A Python mapping as an act's context: strings are borrowed, nothing is converted that has no stated encoding.

use creto_enablement_common::{Error, Value};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple};
use smallvec::SmallVec;
use std::cell::OnceCell;
use std::net::Ipv6Addr;

use crate::error::to_py;

/// How deep a context may nest, as for every text.
const NESTING: usize = 64;

/// One value, kept alive while Rust borrows from it. `'a` is the borrow of the whole tree.
pub enum Held<'py, 'a> {
    Bool(bool),
    Long(i64),
    Text(Bound<'py, PyString>),
    Entity(String, String),
    Extension(&'static str, String),
    Set(Vec<Held<'py, 'a>>, OnceCell<Box<[Value<'a>]>>),
    Record(Vec<(Bound<'py, PyString>, Held<'py, 'a>)>, OnceCell<Box<[(&'a str, Value<'a>)]>>),
}

/// The named values of one context. Nearly all are text, numbers and booleans, and taking hold of those allocates nothing.
pub struct HeldFields<'py, 'a> {
    named: SmallVec<[(Bound<'py, PyString>, Place<'py>); 4]>,
    /// A `Vec`, since the borrow lasts until it is dropped, which only the standard library's types may promise.
    nested: Vec<Held<'py, 'a>>,
}

/// A value of a context, or where it lies among the nested ones.
enum Place<'py> {
    Bool(bool),
    Long(i64),
    Text(Bound<'py, PyString>),
    Nested(usize),
}

/// Takes hold of a context.
pub fn hold<'py, 'a>(context: &Bound<'py, PyDict>) -> PyResult<HeldFields<'py, 'a>> {
    let mut held = HeldFields { named: SmallVec::new(), nested: Vec::new() };
    for (name, value) in context.iter() {
        let name = key(name)?;
        let place = match value_of(&value, &name, 1)? {
            Held::Text(text) => Place::Text(text),
            Held::Long(n) => Place::Long(n),
            Held::Bool(b) => Place::Bool(b),
            nested => {
                held.nested.push(nested);
                Place::Nested(held.nested.len() - 1)
            }
        };
        held.named.push((name, place));
    }
    Ok(held)
}

/// Borrows what is held.
pub fn borrow<'py, 'a>(held: &'a HeldFields<'py, 'a>) -> PyResult<SmallVec<[(&'a str, Value<'a>); 4]>> {
    let mut fields = SmallVec::new();
    for (name, place) in &held.named {
        let value = match place {
            Place::Bool(b) => Value::Bool(*b),
            Place::Long(n) => Value::Long(*n),
            Place::Text(text) => Value::Str(text.to_str()?),
            Place::Nested(at) => match held.nested.get(*at) {
                Some(nested) => nested.borrow()?,
                None => continue,
            },
        };
        fields.push((name.to_str()?, value));
    }
    Ok(fields)
}

impl<'py, 'a> Held<'py, 'a> {
    fn borrow(&'a self) -> PyResult<Value<'a>> {
        Ok(match self {
            Self::Bool(b) => Value::Bool(*b),
            Self::Long(n) => Value::Long(*n),
            Self::Text(text) => Value::Str(text.to_str()?),
            Self::Entity(kind, id) => Value::Entity(kind, id),
            Self::Extension(name, text) => Value::Extension(name, text),
            Self::Set(items, cell) => {
                let made = items.iter().map(Self::borrow).collect::<PyResult<Box<[_]>>>()?;
                Value::Set(cell.get_or_init(|| made))
            }
            Self::Record(fields, cell) => {
                let made = fields.iter().map(|(name, value)| Ok((name.to_str()?, value.borrow()?))).collect::<PyResult<Box<[_]>>>()?;
                Value::Record(cell.get_or_init(|| made))
            }
        })
    }
}

fn key(name: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyString>> {
    let py = name.py();
    name.cast_into::<PyString>()
        .map_err(|e| to_py(py, &Error::invalid(format!("context: a name is text, and this is not: {}", e.into_inner()))))
}

#[inline]
fn value_of<'py, 'a>(value: &Bound<'py, PyAny>, name: &Bound<'py, PyString>, depth: usize) -> PyResult<Held<'py, 'a>> {
    let py = value.py();
    let refuse = |why: String| to_py(py, &Error::invalid(format!("context `{name}`: {why}")));
    if depth > NESTING {
        return Err(refuse(format!("nested deeper than {NESTING}")));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Held::Text(text.clone()));
    }
    if let Ok(b) = value.cast::<PyBool>() {
        return Ok(Held::Bool(b.is_true()));
    }
    if value.cast::<PyInt>().is_ok() {
        return value.extract().map(Held::Long).map_err(|_| refuse("the integer does not fit into 64 bits".to_owned()));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        return record(dict, name, depth);
    }
    if value.cast::<PyList>().is_ok()
        || value.cast::<PyTuple>().is_ok()
        || value.cast::<PySet>().is_ok()
        || value.cast::<PyFrozenSet>().is_ok()
    {
        let items = value.try_iter()?.map(|item| value_of(&item?, name, depth + 1)).collect::<PyResult<Vec<_>>>()?;
        return Ok(Held::Set(items, OnceCell::new()));
    }
    if value.cast::<PyFloat>().is_ok() {
        return Err(refuse("a float has no exact encoding; give a `decimal.Decimal` with at most four places, or an integer".to_owned()));
    }
    extension(value)?.ok_or_else(|| {
        let kind = value.get_type().name().map_or_else(|_| "?".to_owned(), |n| n.to_string());
        refuse(format!("a `{kind}` has no stated encoding; give text, an integer, a bool, a list, a dict, a Decimal, an IP address, a datetime or a timedelta"))
    })
}

fn record<'py, 'a>(dict: &Bound<'py, PyDict>, name: &Bound<'py, PyString>, depth: usize) -> PyResult<Held<'py, 'a>> {
    let py = dict.py();
    if dict.len() == 1 {
        // Cedar's own JSON escapes.
        if let Some(entity) = dict.get_item("__entity")? {
            let part = |key: &str| entity.get_item(key).and_then(|v| v.extract::<String>());
            let (kind, id) = part("type")
                .and_then(|kind| Ok((kind, part("id")?)))
                .map_err(|_| to_py(py, &Error::invalid(format!("context `{name}`: `__entity` holds `type` and `id`"))))?;
            return Ok(Held::Entity(kind, id));
        }
        if let Some(extension) = dict.get_item("__extn")? {
            let part = |key: &str| extension.get_item(key).and_then(|v| v.extract::<String>());
            let (function, text) = part("fn")
                .and_then(|function| Ok((function, part("arg")?)))
                .map_err(|_| to_py(py, &Error::invalid(format!("context `{name}`: `__extn` holds `fn` and `arg`"))))?;
            let function = ["decimal", "ip", "datetime", "duration"].into_iter().find(|known| *known == function).ok_or_else(|| {
                to_py(py, &Error::invalid(format!("context `{name}`: `{function}` is not decimal, ip, datetime or duration")))
            })?;
            return Ok(Held::Extension(function, if function == "ip" { address(text) } else { text }));
        }
    }
    let fields = dict
        .iter()
        .map(|(inner, value)| {
            let inner = key(inner)?;
            let value = value_of(&value, &inner, depth + 1)?;
            Ok((inner, value))
        })
        .collect::<PyResult<Vec<_>>>()?;
    Ok(Held::Record(fields, OnceCell::new()))
}

/// An address as policies know it: a socket takes `::ffff:127.0.0.1` to where `127.0.0.1` leads, and Cedar tells the two apart.
fn address(text: String) -> String {
    let mapped = text.parse::<Ipv6Addr>().ok().and_then(|v6| v6.to_ipv4_mapped());
    mapped.map_or(text, |v4| v4.to_string())
}

/// The standard library's types that Cedar has a type for.
fn extension<'py, 'a>(value: &Bound<'py, PyAny>) -> PyResult<Option<Held<'py, 'a>>> {
    let py = value.py();
    let kind = value.get_type();
    let module: String = kind.module()?.to_string();
    let kind: String = kind.name()?.to_string();
    Ok(match (module.as_str(), kind.as_str()) {
        ("decimal" | "_decimal" | "_pydecimal", "Decimal") => {
            let mut text: String = value.call_method1("__format__", ("f",))?.extract()?;
            if !text.contains('.') {
                text.push_str(".0");
            }
            Some(Held::Extension("decimal", text))
        }
        ("ipaddress", "IPv4Address" | "IPv6Address" | "IPv4Network" | "IPv6Network" | "IPv4Interface" | "IPv6Interface") => {
            Some(Held::Extension("ip", address(value.str()?.to_string())))
        }
        ("datetime", "datetime") => {
            if value.getattr("tzinfo")?.is_none() {
                return Err(to_py(py, &Error::invalid(format!("context: the datetime `{value}` has no time zone; give it one"))));
            }
            let text: String = value.call_method1("isoformat", ("T", "milliseconds"))?.extract()?;
            // Cedar writes the offset without a colon.
            let (head, zone) = text.split_at_checked(text.len().saturating_sub(6)).unwrap_or((&text, ""));
            Some(Held::Extension("datetime", format!("{head}{}", zone.replace(':', ""))))
        }
        ("datetime", "timedelta") => {
            let part = |name: &str| value.getattr(name).and_then(|v| v.extract::<i64>());
            let millis = part("days")? * 86_400_000 + part("seconds")? * 1_000 + part("microseconds")? / 1_000;
            Some(Held::Extension("duration", format!("{millis}ms")))
        }
        _ => None,
    })
}
