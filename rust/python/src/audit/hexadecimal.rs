//! Bytes of a fixed number, as Python has them: bytes, or hexadecimal digits.

use crate::error;
use creto_enablement_common::Error;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use std::fmt::Write as _;

/// The hexadecimal digits of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of a fixed number, given as such or in hexadecimal.
pub fn fixed<const N: usize>(name: &str, value: &Bound<'_, PyAny>) -> PyResult<[u8; N]> {
    let wrong = || error::to_py(value.py(), &Error::invalid(format!("`{name}` is not {N} bytes, nor {} hexadecimal digits", 2 * N)));
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return bytes.as_bytes().try_into().map_err(|_| wrong());
    }
    let text = value.cast::<PyString>().map_err(|_| wrong())?;
    let text = text.to_str()?;
    let mut out = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return Err(wrong());
    }
    for (place, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *place = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(out)
}
