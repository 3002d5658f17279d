//! What a dict lends for the length of one call: names with text, integers and booleans, without a count kept of any of them.
//!
//! Nearly every context and every usage is of that kind. Counting references to a name and a value, and back, costs more than the decision
//! that is asked for; what is not of that kind is taken hold of by `value`.

use crate::quota::Quantities;
use crate::value::{borrow, hold};
use creto_enablement_common::{Fields, Usage, Value};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use smallvec::SmallVec;
use std::ffi::{c_char, c_int};
use std::ptr::null_mut;

/// Names and what they stand for; few, as a rule.
type Lent<'a, T> = SmallVec<[(&'a str, T); 4]>;

/// Asks with a context.
#[inline]
pub fn with_context<R>(context: Option<&Bound<'_, PyDict>>, ask: impl FnOnce(Fields<'_>) -> R + Send) -> PyResult<R> {
    with_act(context, None, |context, _| ask(context))
}

/// Asks with a context and usage. `Send`: whoever asks has nothing of Python's at hand, so no dict changes while it lends.
#[inline]
pub fn with_act<R>(
    context: Option<&Bound<'_, PyDict>>,
    usage: Option<&Bound<'_, PyDict>>,
    ask: impl FnOnce(Fields<'_>, Usage<'_>) -> R + Send,
) -> PyResult<R> {
    let (mut fields, mut meters) = (Lent::new(), Lent::new());
    let lent =
        context.is_none_or(|context| lend(context, &mut fields, value)) && usage.is_none_or(|usage| lend(usage, &mut meters, quantity));
    if lent {
        return Ok(ask(&fields, &meters));
    }
    drop((fields, meters));
    let held = context.map(hold).transpose()?;
    let held_usage = usage.map(|usage| Quantities::read(usage.py(), usage)).transpose()?;
    let fields = held.as_ref().map(borrow).transpose()?.unwrap_or_default();
    let meters = held_usage.as_ref().map(Quantities::refs).transpose()?.unwrap_or_default();
    Ok(ask(&fields, &meters))
}

/// Asks with the names of a path and usage; none where they are of another kind, and nothing was asked then. `Send`: as above.
#[inline]
pub fn with_path<R>(path: &Bound<'_, PyAny>, usage: &Bound<'_, PyDict>, ask: impl FnOnce(&[&str], Usage<'_>) -> R + Send) -> Option<R> {
    let path = path.cast_exact::<PyTuple>().ok()?;
    let mut names: SmallVec<[&str; 8]> = SmallVec::new();
    for name in path.iter_borrowed() {
        names.push(text(Object(name.as_ptr(), std::marker::PhantomData))?);
    }
    let mut meters = Lent::new();
    lend(usage, &mut meters, quantity).then(|| ask(&names, &meters))
}

/// Text, a whole number or a boolean.
#[inline]
fn value<'a>(object: Object<'a>) -> Option<Value<'a>> {
    if let Some(text) = text(object) {
        return Some(Value::Str(text));
    }
    if let Some(number) = whole(object) {
        return Some(Value::Long(number));
    }
    object.is_exactly(&raw mut ffi::PyBool_Type).then(|| Value::Bool(object.is_true()))
}

#[inline]
fn quantity(object: Object<'_>) -> Option<u64> {
    u64::try_from(whole(object)?).ok()
}

/// An object that its dict keeps alive for `'a`.
#[derive(Clone, Copy)]
struct Object<'a>(*mut ffi::PyObject, std::marker::PhantomData<&'a ()>);

impl Object<'_> {
    #[inline]
    #[expect(unsafe_code, reason = "an object is asked for its type without being counted")]
    fn is_exactly(self, kind: *mut ffi::PyTypeObject) -> bool {
        // SAFETY: the object is alive, and every object has a type.
        unsafe { ffi::Py_TYPE(self.0) == kind }
    }

    #[inline]
    #[expect(unsafe_code, reason = "there is one object that means true")]
    fn is_true(self) -> bool {
        // SAFETY: the interpreter is attached, so its constants are there.
        self.0 == unsafe { ffi::Py_True() }
    }
}

/// Names and what `take` makes of their values into `fields`; false where a name or a value is of another kind, and then they say nothing.
///
/// INVARIANT: the dict does not change as long as `fields` live; nothing of Python's runs till then.
#[inline]
#[expect(unsafe_code, reason = "a dict is walked without counting what it holds")]
fn lend<'a, T>(dict: &'a Bound<'_, PyDict>, fields: &mut Lent<'a, T>, take: impl Fn(Object<'a>) -> Option<T>) -> bool {
    let (mut at, mut name, mut value) = (0, null_mut(), null_mut());
    // SAFETY: the interpreter is attached, since there is a `Bound`; name and value are set whenever this says that there is a next one, and
    // live as long as the dict holds them.
    while unsafe { ffi::PyDict_Next(dict.as_ptr(), &raw mut at, &raw mut name, &raw mut value) } != 0 {
        let (name, value) = (Object(name, std::marker::PhantomData), Object(value, std::marker::PhantomData));
        let (Some(name), Some(value)) = (text(name), take(value)) else {
            fields.clear();
            return false;
        };
        fields.push((name, value));
    }
    true
}

/// Text of exactly that type; none too where it holds half a surrogate.
#[inline]
#[expect(unsafe_code, reason = "text is borrowed from the object that holds it")]
fn text<'a>(object: Object<'a>) -> Option<&'a str> {
    if !object.is_exactly(&raw mut ffi::PyUnicode_Type) {
        return None;
    }
    let mut len = 0;
    // SAFETY: it is a string, and the interpreter is attached.
    let start: *const c_char = unsafe { ffi::PyUnicode_AsUTF8AndSize(object.0, &raw mut len) };
    if start.is_null() {
        // SAFETY: as above; the error is raised again by whoever takes hold of the value.
        unsafe { ffi::PyErr_Clear() };
        return None;
    }
    // SAFETY: the interpreter answers with that many bytes of UTF-8, which live as long as the string does.
    Some(unsafe { str::from_utf8_unchecked(std::slice::from_raw_parts(start.cast(), len as usize)) })
}

/// A whole number of exactly that type; none too where 64 bits do not hold it.
#[inline]
#[expect(unsafe_code, reason = "a number is read from the object that holds it")]
fn whole(object: Object<'_>) -> Option<i64> {
    if !object.is_exactly(&raw mut ffi::PyLong_Type) {
        return None;
    }
    let mut overflow: c_int = 0;
    // SAFETY: it is an integer of exactly that type, so nobody's method is called; the interpreter is attached.
    let number = unsafe { ffi::PyLong_AsLongAndOverflow(object.0, &raw mut overflow) };
    (overflow == 0).then_some(number)
}
