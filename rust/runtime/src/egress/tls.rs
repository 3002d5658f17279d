//! Reads the server name from a TLS ClientHello (RFC 8446, RFC 6066); decrypts nothing.

/// What the first bytes of a TLS connection say.
#[derive(Debug, PartialEq, Eq)]
pub enum Hello {
    /// More bytes are needed.
    Incomplete,
    /// The name asked for.
    Name(String),
    /// No readable ClientHello with exactly one name.
    Bad(&'static str),
}

/// Far more than any client sends its first message in: what has come is read anew with each of them.
const MOST_RECORDS: usize = 256;

/// Reads what has come so far.
pub fn hello(bytes: &[u8]) -> Hello {
    let mut handshake = Vec::new();
    let mut rest = bytes;
    for _ in 0..=MOST_RECORDS {
        if let Some(length) = handshake.get(1..4).and_then(number) {
            if handshake.first() != Some(&1) {
                return Hello::Bad("the first TLS message is no ClientHello");
            }
            if length > 65_536 {
                return Hello::Bad("the ClientHello is too long");
            }
            if let Some(body) = handshake.get(4..4 + length) {
                return server_name(body).unwrap_or(Hello::Bad("the ClientHello cannot be read"));
            }
        }
        let Some(head) = rest.get(..5) else { return Hello::Incomplete };
        if head.first() != Some(&22) || head.get(1) != Some(&3) {
            return Hello::Bad("not a TLS handshake record");
        }
        let Some(length) = head.get(3..5).and_then(number) else { return Hello::Incomplete };
        if length == 0 || length > 16_640 {
            return Hello::Bad("a TLS record of impossible length");
        }
        let Some(part) = rest.get(5..5 + length) else { return Hello::Incomplete };
        handshake.extend_from_slice(part);
        rest = rest.get(5 + length..).unwrap_or_default();
    }
    Hello::Bad("the ClientHello is in too many records")
}

fn server_name(body: &[u8]) -> Option<Hello> {
    let mut at = 2 + 32;
    at += 1 + usize::from(*body.get(at)?);
    at += 2 + number(body.get(at..at + 2)?)?;
    at += 1 + usize::from(*body.get(at)?);
    let Some(total) = body.get(at..at + 2) else { return Some(Hello::Bad("the ClientHello names no server")) };
    let mut extensions = body.get(at + 2..at + 2 + number(total)?)?;
    let mut found = None;
    while !extensions.is_empty() {
        let kind = number(extensions.get(..2)?)?;
        let length = number(extensions.get(2..4)?)?;
        let data = extensions.get(4..4 + length)?;
        extensions = extensions.get(4 + length..)?;
        if kind == 0 {
            if found.is_some() {
                return Some(Hello::Bad("the ClientHello names two servers"));
            }
            // A list with one entry of type host_name.
            let (list, entry) = (number(data.get(..2)?)?, number(data.get(3..5)?)?);
            if list + 2 != data.len() || entry + 5 != data.len() || data.get(2) != Some(&0) {
                return Some(Hello::Bad("the ClientHello names two servers"));
            }
            found = Some(String::from_utf8(data.get(5..)?.to_vec()).ok()?);
        }
    }
    Some(found.map_or(Hello::Bad("the ClientHello names no server"), Hello::Name))
}

fn number(bytes: &[u8]) -> Option<usize> {
    Some(bytes.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn client_hello(name: Option<&str>, record: usize) -> Vec<u8> {
        let mut extensions = vec![0, 43, 0, 3, 2, 3, 4];
        if let Some(name) = name {
            let n = name.len() as u16;
            extensions.extend([0, 0]);
            extensions.extend((n + 5).to_be_bytes());
            extensions.extend((n + 3).to_be_bytes());
            extensions.push(0);
            extensions.extend(n.to_be_bytes());
            extensions.extend(name.as_bytes());
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = vec![1, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        let mut bytes = Vec::new();
        for part in message.chunks(record) {
            bytes.extend([22, 3, 1]);
            bytes.extend((part.len() as u16).to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }

    #[test]
    fn the_name_is_found_in_one_record_or_in_many_and_every_prefix_asks_for_more() {
        for record in [1, 7, 4000] {
            let bytes = client_hello(Some("example.org"), record);
            assert_eq!(hello(&bytes), Hello::Name("example.org".into()));
            for end in 0..bytes.len() {
                assert_eq!(hello(&bytes[..end]), Hello::Incomplete);
            }
        }
        assert_eq!(hello(&client_hello(None, 4000)), Hello::Bad("the ClientHello names no server"));
        let crumbs = client_hello(Some(&"x".repeat(400)), 1);
        assert_eq!(hello(&crumbs), Hello::Bad("the ClientHello is in too many records"));
    }

    proptest! {
        #[test]
        fn any_change_is_read_or_refused_but_never_crashes(at in 0usize..80, byte in any::<u8>()) {
            let mut bytes = client_hello(Some("example.org"), 4000);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = hello(&bytes);
        }
    }
}
