//! One algorithm's signature over one byte string.

use crate::Algorithm;

/// A signature and the algorithm that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What made it.
    pub algorithm: Algorithm,
    /// Its bytes, in the algorithm's own encoding.
    pub bytes: Vec<u8>,
}
