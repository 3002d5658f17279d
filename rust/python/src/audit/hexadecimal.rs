//! Bytes of a fixed number, as Python has them: bytes, or hexadecimal digits.

use crate::error;
use creto_enablement_common::Error;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// Bytes of a fixed number, given as such or in hexadecimal.
pub fn fixed<const N: usize>(name: &str, value: &Bound<'_, PyAny>) -> PyResult<[u8; N]> {
    let wrong = || error::to_py(value.py(), &Error::invalid(format!("`{name}` is not {N} bytes, nor {} hexadecimal digits", 2 * N)));
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return bytes.as_bytes().try_into().map_err(|_| wrong());
    }
    let text = value.cast::<PyString>().map_err(|_| wrong())?;
    let text = text.to_str()?;
    let mut out = [0; N];
    let read = base16ct::mixed::decode(text, &mut out).map_err(|_| wrong())?.len();
    if read == N { Ok(out) } else { Err(wrong()) }
}
