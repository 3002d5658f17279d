//! DER: writing with lengths known beforehand or patched in afterwards, and a strict, borrowed walk over what others wrote.
//!
//! Reading goes through the crate `der`: no indefinite and no non-minimal length, no high tag numbers, nothing left over.

use crate::Error;
use der::asn1::ObjectIdentifier;
use der::{Decode as _, Header, Reader as _, SliceReader};

/// SEQUENCE.
pub const SEQUENCE: u8 = 0x30;
/// SET.
pub const SET: u8 = 0x31;
/// INTEGER.
pub const INTEGER: u8 = 0x02;
/// OCTET STRING.
pub const OCTET_STRING: u8 = 0x04;
/// OBJECT IDENTIFIER.
pub const OID: u8 = 0x06;
/// BIT STRING.
pub const BIT_STRING: u8 = 0x03;
/// BOOLEAN.
pub const BOOLEAN: u8 = 0x01;
/// UTF8String.
pub const UTF8_STRING: u8 = 0x0c;
/// UTCTime.
pub const UTC_TIME: u8 = 0x17;
/// GeneralizedTime.
pub const GENERALIZED_TIME: u8 = 0x18;

/// Context-specific and constructed.
pub const fn explicit(number: u8) -> u8 {
    0xa0 | number
}

/// Context-specific and primitive.
pub const fn implicit(number: u8) -> u8 {
    0x80 | number
}

/// Bytes of a tag and length over `content` bytes.
pub const fn header_len(content: usize) -> usize {
    match content {
        0..=0x7f => 2,
        0x80..=0xff => 3,
        0x100..=0xffff => 4,
        0x1_0000..=0xff_ffff => 5,
        _ => 6,
    }
}

/// Bytes of a whole element over `content` bytes.
pub const fn element_len(content: usize) -> usize {
    header_len(content) + content
}

/// Appends a tag and a length.
pub fn put_header(out: &mut Vec<u8>, tag: u8, content: usize) {
    out.push(tag);
    let bytes = (content as u64).to_be_bytes();
    if content < 0x80 {
        out.push(content as u8);
    } else {
        let significant = header_len(content) - 2;
        out.push(0x80 | significant as u8);
        out.extend(bytes.iter().skip(bytes.len() - significant));
    }
}

/// Appends a whole element.
pub fn put(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    put_header(out, tag, content.len());
    out.extend_from_slice(content);
}

/// Appends an object identifier.
pub fn put_oid(out: &mut Vec<u8>, oid: ObjectIdentifier) {
    put(out, OID, oid.as_bytes());
}

/// Appends an element whose content is written by `inside`; for small ones, since the content is moved to make room for its length.
pub fn nest(out: &mut Vec<u8>, tag: u8, inside: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    inside(out);
    let content = out.len() - start;
    put_header(out, tag, content);
    // The header stands at the end now; turned to the front, it moves the content behind it.
    out.get_mut(start..).unwrap_or_default().rotate_left(content);
}

/// A walk over the elements inside one.
pub struct Walk<'a> {
    reader: SliceReader<'a>,
    bytes: &'a [u8],
}

fn refused(error: impl core::fmt::Display) -> Error {
    Error::Malformed(format!("not strict DER as expected here: {error}"))
}

/// One element: its tag byte, its content, and the whole of it.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    /// The tag byte.
    pub tag: u8,
    /// What is inside.
    pub content: &'a [u8],
    /// Header and content.
    pub whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// A walk over what is inside.
    pub fn walk(&self) -> Result<Walk<'a>, Error> {
        Walk::new(self.content)
    }
}

impl<'a> Walk<'a> {
    /// A walk over elements that stand one after another.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        Ok(Self { reader: SliceReader::new(bytes).map_err(refused)?, bytes })
    }

    /// The one element that these bytes are, with this tag.
    pub fn only(bytes: &'a [u8], tag: u8) -> Result<Element<'a>, Error> {
        let mut walk = Self::new(bytes)?;
        let element = walk.expect(tag)?;
        walk.finish()?;
        Ok(element)
    }

    /// True where nothing is left.
    pub fn is_finished(&self) -> bool {
        self.reader.is_finished()
    }

    /// The next tag byte, if any.
    pub fn peek(&self) -> Option<u8> {
        self.reader.peek_byte()
    }

    /// The next element, whatever it is.
    pub fn any(&mut self) -> Result<Element<'a>, Error> {
        let tag = self.peek().ok_or_else(|| refused("an element is missing"))?;
        if tag & 0x1f == 0x1f {
            return Err(refused("a tag number of more than one byte"));
        }
        let start = self.reader.position();
        let header = Header::decode(&mut self.reader).map_err(refused)?;
        let content = self.reader.read_slice(header.length()).map_err(refused)?;
        let place = |at: der::Length| usize::try_from(at).map_err(refused);
        let whole = self.bytes.get(place(start)?..place(self.reader.position())?).unwrap_or_default();
        Ok(Element { tag, content, whole })
    }

    /// The next element, which must have this tag.
    pub fn expect(&mut self, tag: u8) -> Result<Element<'a>, Error> {
        match self.peek() {
            Some(found) if found == tag => self.any(),
            Some(found) => Err(refused(format!("tag {found:#04x} where {tag:#04x} is wanted"))),
            None => Err(refused(format!("tag {tag:#04x} is missing"))),
        }
    }

    /// The next element, which must be exactly these bytes, header included.
    pub fn exactly(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.any()?.whole == bytes { Ok(()) } else { Err(refused("a field has another value than the profile allows")) }
    }

    /// The next element, which must be this object identifier.
    pub fn oid(&mut self, oid: ObjectIdentifier) -> Result<(), Error> {
        if self.expect(OID)?.content == oid.as_bytes() { Ok(()) } else { Err(refused(format!("an object identifier other than {oid}"))) }
    }

    /// Refuses anything left over.
    pub fn finish(self) -> Result<(), Error> {
        if self.is_finished() { Ok(()) } else { Err(refused("bytes are left over")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal_and_read_back() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0x12_3456] {
            let mut out = Vec::new();
            put(&mut out, OCTET_STRING, &vec![7; length]);
            assert_eq!(out.len(), element_len(length));
            assert_eq!(Walk::only(&out, OCTET_STRING).unwrap().content.len(), length);
        }
    }

    #[test]
    fn other_encodings_of_the_same_are_refused() {
        for (bad, why) in [
            (&[0x04, 0x81, 0x01, 0x00][..], "length longer than needed"),
            (&[0x04, 0x82, 0x00, 0x80, 0x00], "leading zero"),
            (&[0x24, 0x80, 0x04, 0x01, 0x00, 0x00, 0x00], "indefinite"),
            (&[0x04, 0x01, 0x00, 0x00], "left over"),
            (&[0x04, 0x84, 0x40, 0x00, 0x00, 0x00], "claims a gigabyte"),
            (&[0x1f, 0x81, 0x00, 0x00], "high tag number"),
            (&[0x04], "cut"),
        ] {
            assert!(Walk::only(bad, bad[0]).is_err(), "{why}");
        }
    }
}
