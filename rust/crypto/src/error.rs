//! What can go wrong with keys and ciphertexts, told without telling an attacker which step failed.

use core::fmt;

/// A failure of a cryptographic operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A signature is missing, added, or not valid over these bytes.
    Signature,
    /// A ciphertext, wrapped key or sealed secret did not open.
    Decryption,
    /// Input that has no valid reading: what was expected is in the text.
    Malformed(String),
    /// A provider, algorithm or source of randomness is not available.
    Unavailable(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature => f.write_str("the signature is not valid"),
            Self::Decryption => f.write_str("the ciphertext cannot be opened with this key"),
            Self::Malformed(what) => write!(f, "malformed input: {what}"),
            Self::Unavailable(what) => write!(f, "not available: {what}"),
        }
    }
}

impl std::error::Error for Error {}
