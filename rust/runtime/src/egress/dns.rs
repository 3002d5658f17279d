//! The sandbox's name server: it never recurses. A name gets a fake address; every other question an empty answer or a refusal (RFC 1035).

use super::names::{Names, normal};
use creto_enablement_common::sync::Mutex;

const REFUSED: u8 = 5;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;

/// The datagram that answers another; none where that is no question at all.
pub fn answer(question: &[u8], names: &Mutex<Names>, known: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
    let header = question.get(..12)?;
    let (flags, count) = (*header.get(2)?, header.get(4..6)?);
    if flags & 0x80 != 0 || flags & 0x78 != 0 || count != [0, 1] {
        return None;
    }
    let (name, end) = read_name(question, 12)?;
    let kind = u16::from_be_bytes(question.get(end..end + 2)?.try_into().ok()?);
    let class = u16::from_be_bytes(question.get(end + 2..end + 4)?.try_into().ok()?);
    let section = question.get(12..end + 4)?;
    let name = normal(&name);
    let respond = |code: u8, address: Option<[u8; 4]>| {
        let mut bytes = Vec::with_capacity(section.len() + 28);
        bytes.extend_from_slice(header.get(..2)?);
        // A response, authoritative, recursion offered (or stub resolvers complain) but never done.
        bytes.extend_from_slice(&[0x84 | (flags & 1), 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
        bytes.extend_from_slice(section);
        if let Some(address) = address {
            bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            bytes.extend_from_slice(&address);
        }
        Some(bytes)
    };
    match &name {
        None => respond(NO_SUCH_NAME, None),
        Some(name) if !name.contains('.') && !known(name) => respond(NO_SUCH_NAME, None),
        Some(_) if class != CLASS_IN => respond(REFUSED, None),
        Some(name) if kind == TYPE_A => match names.lock().address(name) {
            Some(address) => respond(0, Some(address.octets())),
            None => respond(SERVER_FAILURE, None),
        },
        // No IPv6, no TXT, no HTTPS record (and so no encrypted client hello): the name exists, the record does not.
        Some(_) => respond(0, None),
    }
}

fn read_name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        match length {
            0 => return Some((name, at)),
            // A question has nothing to point back to.
            64.. => return None,
            _ => {
                let label = bytes.get(at..at + length)?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|b| char::from(*b)));
                at += length;
            }
        }
        if name.len() > 255 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.extend([0, (kind >> 8) as u8, kind as u8, 0, 1]);
        bytes
    }

    #[test]
    fn a_name_gets_a_fake_address_and_nothing_else_is_answered() {
        let names = Mutex::new(Names::default());
        let reply = answer(&question("Example.org", 1), &names, |_| false).unwrap();
        assert_eq!(&reply[reply.len() - 4..reply.len() - 2], [198, 18]);
        assert_eq!(names.lock().name(std::net::Ipv4Addr::new(198, 18, 0, 16)), Some("example.org"));
        for kind in [16, 28, 65, 255, 15] {
            let reply = answer(&question("example.org", kind), &names, |_| false).unwrap();
            assert_eq!((reply[3] & 15, reply[7]), (0, 0), "record type {kind}");
        }
    }

    #[test]
    fn a_bare_word_is_no_name_unless_it_was_configured() {
        let names = Mutex::new(Names::default());
        assert_eq!(answer(&question("intranet", 1), &names, |_| false).unwrap()[3] & 15, 3);
        assert_eq!(answer(&question("intranet", 1), &names, |n| n == "intranet").unwrap()[7], 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_or_dropped_but_never_crash(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let names = Mutex::new(Names::default());
            if let Some(reply) = answer(&bytes, &names, |_| true) {
                prop_assert_eq!(&reply[..2], &bytes[..2]);
                prop_assert!(reply[2] & 0x80 != 0);
            }
        }
    }
}
