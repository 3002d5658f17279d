//! An entity's id, beside the rest of the entity where it is short: a name is then compared without another way to memory.

use std::sync::Arc;

/// The most bytes of a short one: with its length and a pointer beside it, it fills a cache line.
const SHORT: usize = 54;

/// An id.
#[derive(Clone, Debug)]
pub enum Id {
    /// Length and bytes.
    Short(u8, [u8; SHORT]),
    Long(Arc<str>),
}

impl Id {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(text) => text.as_bytes(),
        }
    }

    /// Whether this is that text.
    #[inline]
    pub fn is(&self, text: &str) -> bool {
        self.bytes() == text.as_bytes()
    }

    /// Its text.
    pub fn text(&self) -> &str {
        match self {
            // Made of a text and never changed, so it is one.
            Self::Short(..) => str::from_utf8(self.bytes()).unwrap_or_default(),
            Self::Long(text) => text,
        }
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        match (u8::try_from(text.len()), bytes.get_mut(..text.len())) {
            (Ok(len), Some(place)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Short(len, bytes)
            }
            _ => Self::Long(text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_every_length_are_themselves_and_nothing_else() {
        assert_eq!(size_of::<Id>(), 56);
        for len in 0..200 {
            let text = "é".repeat(len / 2) + &"x".repeat(len % 2);
            let id = Id::from(text.as_str());
            assert_eq!(id.text(), text);
            assert!(id.is(&text) && !id.is(&format!("{text}x")) && (len == 0 || !id.is("")));
        }
    }
}
