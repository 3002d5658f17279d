//! RFC 8785 JSON of what Python holds in dicts, lists, texts and whole numbers: invoices, for their digest.

use crate::error;
use creto_enablement_common::Error;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};

/// Deeper than any invoice; a file that somebody else wrote may be nested at will.
const DEEPEST: usize = 100;

fn refused(py: Python<'_>, what: &str) -> PyErr {
    error::to_py(py, &Error::invalid(format!("a document with a digest {what}")))
}

fn text(value: &Bound<'_, PyString>, out: &mut Vec<u8>) -> PyResult<()> {
    let text = value.to_str()?;
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // RFC 8785 escapes as serde_json does.
        out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
    Ok(())
}

fn object(value: &Bound<'_, PyDict>, without: Option<&str>, depth: usize, out: &mut Vec<u8>) -> PyResult<()> {
    let mut members: Vec<(Bound<'_, PyString>, Bound<'_, PyAny>)> = Vec::with_capacity(value.len());
    for (name, member) in value {
        members.push((name.cast_into::<PyString>().map_err(|_| refused(value.py(), "has names that are texts"))?, member));
    }
    let mut named = Vec::with_capacity(members.len());
    for (name, member) in &members {
        named.push((name.to_str()?, name, member));
    }
    // By UTF-16, as RFC 8785 has it; which is by bytes while all is ASCII.
    if named.iter().all(|(name, ..)| name.is_ascii()) {
        named.sort_unstable_by_key(|(name, ..)| *name);
    } else {
        named.sort_by(|(one, ..), (two, ..)| one.encode_utf16().cmp(two.encode_utf16()));
    }
    out.push(b'{');
    let mut first = true;
    for (_, name, member) in named.iter().filter(|(name, ..)| without != Some(*name)) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        text(name, out)?;
        out.push(b':');
        write(member, depth + 1, out)?;
    }
    out.push(b'}');
    Ok(())
}

fn list<'py>(members: impl Iterator<Item = Bound<'py, PyAny>>, depth: usize, out: &mut Vec<u8>) -> PyResult<()> {
    out.push(b'[');
    for (place, member) in members.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(&member, depth + 1, out)?;
    }
    out.push(b']');
    Ok(())
}

fn write(value: &Bound<'_, PyAny>, depth: usize, out: &mut Vec<u8>) -> PyResult<()> {
    if depth > DEEPEST {
        return Err(refused(value.py(), &format!("is nested at most {DEEPEST} deep")));
    }
    if let Ok(value) = value.cast::<PyString>() {
        text(value, out)?;
    } else if let Ok(value) = value.cast::<PyDict>() {
        object(value, None, depth, out)?;
    } else if let Ok(value) = value.cast::<PyList>() {
        list(value.iter(), depth, out)?;
    } else if let Ok(value) = value.cast::<PyBool>() {
        out.extend_from_slice(if value.is_true() { b"true" } else { b"false" });
    } else if let Ok(value) = value.cast::<PyInt>() {
        match value.extract::<i64>() {
            Ok(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Err(_) => out.extend_from_slice(value.str()?.to_str()?.as_bytes()),
        }
    } else if let Ok(value) = value.cast::<PyTuple>() {
        list(value.iter(), depth, out)?;
    } else if value.is_none() {
        out.extend_from_slice(b"null");
    } else {
        return Err(refused(value.py(), "holds texts, whole numbers, lists and objects"));
    }
    Ok(())
}

/// RFC 8785 JSON of a document that holds only texts, whole numbers, lists and objects; one of its own names can be left out.
#[pyfunction]
#[pyo3(signature = (document, without = None))]
pub fn canonical_json<'py>(py: Python<'py>, document: &Bound<'py, PyDict>, without: Option<&str>) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::with_capacity(4096);
    object(document, without, 0, &mut out)?;
    Ok(PyBytes::new(py, &out))
}
