//! The one crate that knows all parts: enter, permit, settle.
