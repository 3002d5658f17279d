//! The few items of CBOR that records use, in the deterministic form of RFC 8949, section 4.2: shortest heads, no indefinite lengths.

use creto_enablement_common::{Error, Result};

pub const UNSIGNED: u8 = 0 << 5;
pub const BYTES: u8 = 2 << 5;
pub const TEXT: u8 = 3 << 5;
pub const ARRAY: u8 = 4 << 5;
pub const MAP: u8 = 5 << 5;
const SIMPLE: u8 = 7 << 5;
const TRUE: u8 = SIMPLE | 21;

/// Appends the head of an item: its major type and its number.
#[inline]
pub fn head(out: &mut Vec<u8>, major: u8, number: u64) {
    // Most are keys and short lengths: one byte, without a call.
    if number < 24 { out.push(major | number as u8) } else { long_head(out, major, number) }
}

fn long_head(out: &mut Vec<u8>, major: u8, number: u64) {
    match number {
        ..=0xff => out.extend_from_slice(&[major | 24, number as u8]),
        0x100..=0xffff => {
            let [a, b] = (number as u16).to_be_bytes();
            out.extend_from_slice(&[major | 25, a, b]);
        }
        0x1_0000..=0xffff_ffff => {
            let [a, b, c, d] = (number as u32).to_be_bytes();
            out.extend_from_slice(&[major | 26, a, b, c, d]);
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

/// Appends a text string.
#[inline]
pub fn text(out: &mut Vec<u8>, text: &str) {
    head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a byte string.
#[inline]
pub fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    head(out, BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends `true`.
#[inline]
pub fn yes(out: &mut Vec<u8>) {
    out.push(TRUE);
}

/// Reads items, refusing every form but the shortest.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let length = usize::try_from(length).map_err(|_| cut())?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(cut)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The head of the next item, which must be of this major type.
    pub fn head(&mut self, major: u8) -> Result<u64> {
        let first = *self.take(1)?.first().ok_or_else(cut)?;
        if first & 0xe0 != major {
            return Err(Error::invalid(format!("an item of major type {} stands where {} belongs", first >> 5, major >> 5)));
        }
        let short = first & 0x1f;
        let (width, least) = match short {
            0..=23 => return Ok(u64::from(short)),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            _ => return Err(Error::invalid("an item of indefinite length")),
        };
        let number = self.take(width)?.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        if number < least { Err(Error::invalid("a number is not in its shortest form")) } else { Ok(number) }
    }

    pub fn text(&mut self) -> Result<&'a str> {
        let length = self.head(TEXT)?;
        core::str::from_utf8(self.take(length)?).map_err(|_| Error::invalid("a text is not UTF-8"))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.head(BYTES)?;
        self.take(length)
    }

    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes()?;
        bytes.try_into().map_err(|_| Error::invalid(format!("a byte string of {} bytes stands where {N} belong", bytes.len())))
    }

    /// True where the next item is `true`, which is then taken.
    pub fn yes(&mut self) -> bool {
        match self.rest.split_first() {
            Some((&TRUE, rest)) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// How many elements follow; no more than there are bytes left, so that a count cannot make anyone allocate.
    pub fn count(&mut self, major: u8) -> Result<usize> {
        let count = self.head(major)?;
        if count > self.rest.len() as u64 { Err(cut()) } else { Ok(count as usize) }
    }
}

fn cut() -> Error {
    Error::invalid("the record ends too early")
}
