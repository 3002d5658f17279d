//! Secret bytes of a fixed length: never printed, never copied by accident, wiped when dropped.

use crate::Error;
use core::fmt;
use zeroize::Zeroizing;

/// `N` secret bytes on the heap, so that moving the handle leaves no copy behind.
pub struct Secret<const N: usize>(Box<Zeroizing<[u8; N]>>);

impl<const N: usize> Secret<N> {
    /// All zero; to be filled in place.
    pub fn zero() -> Self {
        Self(Box::new(Zeroizing::new([0; N])))
    }

    /// Copies the bytes in; the caller wipes its own copy.
    pub fn copy_from(bytes: &[u8]) -> Result<Self, Error> {
        let mut secret = Self::zero();
        if bytes.len() != N {
            return Err(Error::Malformed(format!("a secret of {} bytes where {N} are needed", bytes.len())));
        }
        secret.expose_mut().copy_from_slice(bytes);
        Ok(secret)
    }

    /// Random bytes.
    pub fn random(provider: &crate::Provider) -> Result<Self, Error> {
        let mut secret = Self::zero();
        provider.random.fill(secret.expose_mut())?;
        Ok(secret)
    }

    /// The same, kept out of core dumps: for secrets that live longer than a message.
    #[must_use]
    pub fn kept(self) -> Self {
        crate::dump::forbid();
        crate::dump::leave_out(self.expose());
        self
    }

    /// The bytes, for a primitive.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// The bytes, to be filled by a primitive.
    pub fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> Clone for Secret<N> {
    fn clone(&self) -> Self {
        let mut copy = Self::zero();
        copy.expose_mut().copy_from_slice(self.expose());
        copy
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({N} bytes)")
    }
}
