//! What a program in a sandbox sends: the first bytes of its connections, its look-ups, and what the first process says of it.

use creto_enablement_common::sync::Mutex;
use creto_runtime::egress::http::{Requests, is_http};
use creto_runtime::egress::tls::{Hello, hello};
use creto_runtime::egress::{Names, Request, dns as resolver, normal};

pub fn tls(bytes: &[u8]) {
    let whole = hello(bytes);
    for end in (0..bytes.len()).step_by(bytes.len() / 8 + 1) {
        let part = bytes.get(..end).unwrap_or_default();
        match hello(part) {
            Hello::Incomplete => {}
            early => assert_eq!(early, whole, "more bytes change no answer"),
        }
    }
    if let Hello::Name(name) = whole {
        let _ = normal(&name);
    }
}

fn read(bytes: &[u8], step: usize) -> (Result<(), &'static str>, Vec<u8>, Vec<Request>) {
    let (mut forward, mut seen) = (Vec::new(), Vec::new());
    let mut requests = Requests::new("example.org", 80);
    let result = bytes.chunks(step.max(1)).try_for_each(|part| requests.read(part, &mut forward, &mut seen));
    (result, forward, seen)
}

pub fn http(bytes: &[u8]) {
    // An answer once given stays, and every request that passes would have been found to be one.
    let told: Vec<bool> = (0..=bytes.len().min(300)).filter_map(|end| is_http(bytes.get(..end)?)).collect();
    assert!(told.windows(2).all(|pair| pair.first() == pair.last()), "more bytes change the answer");
    let (result, forward, seen) = read(bytes, bytes.len());
    assert!(bytes.starts_with(&forward), "what passes is what was sent");
    assert!(seen.is_empty() || is_http(bytes) == Some(true), "a request that would have passed unread");
    for step in [1, 7] {
        assert_eq!(read(bytes, step), (result, forward.clone(), seen.clone()), "how it is cut changes nothing");
    }
    for lenient in [
        Lenient { carriage_return: false, old_chunks: true },
        Lenient { carriage_return: true, old_chunks: true },
        Lenient { carriage_return: false, old_chunks: false },
    ] {
        let other = lenient.requests(&forward);
        assert!(other.len() <= seen.len(), "a server sees {other:?} where {seen:?} was asked about");
        for (theirs, ours) in other.iter().zip(&seen) {
            assert_eq!(theirs.method, ours.method, "a server sees another method");
            assert!(theirs.target.ends_with(&ours.target), "a server sees {theirs:?} where {ours:?} was asked about");
        }
    }
}

/// A server that takes what it gets: a line ends at a bare line feed (or carriage return), chunks in HTTP/1.0 may be passed over.
struct Lenient {
    carriage_return: bool,
    old_chunks: bool,
}

impl Lenient {
    fn line<'a>(&self, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let end = bytes.iter().position(|byte| *byte == b'\n' || (self.carriage_return && *byte == b'\r'))?;
        let (line, rest) = bytes.split_at_checked(end)?;
        let crlf = rest.starts_with(b"\r\n");
        *bytes = rest.get(1 + usize::from(crlf)..)?;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    fn requests(&self, mut bytes: &[u8]) -> Vec<Request> {
        let mut found = Vec::new();
        while let Some(request) = self.request(&mut bytes) {
            found.push(request);
        }
        found
    }

    fn request(&self, bytes: &mut &[u8]) -> Option<Request> {
        let mut line = self.line(bytes)?;
        while line.is_empty() {
            line = self.line(bytes)?;
        }
        let line = String::from_utf8_lossy(line).into_owned();
        let mut words = line.split_ascii_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let old = words.next() == Some("HTTP/1.0");
        let (mut length, mut chunked) = (0_usize, false);
        loop {
            let header = self.line(bytes)?;
            if header.is_empty() {
                break;
            }
            let header = String::from_utf8_lossy(header).to_ascii_lowercase();
            let Some((name, value)) = header.split_once(':') else { continue };
            match name.trim() {
                "content-length" => length = value.trim().parse().ok()?,
                "transfer-encoding" => chunked = value.contains("chunked") && (self.old_chunks || !old),
                _ => {}
            }
        }
        let request = Request { method, target };
        if !chunked {
            // A body that is not all there ends what this server sees.
            *bytes = bytes.get(length.min(bytes.len())..)?;
            return Some(request);
        }
        loop {
            let Some(size) = self.line(bytes) else { return self.last(bytes, request) };
            let digits: String = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).map(|byte| char::from(*byte)).collect();
            let Ok(size) = usize::from_str_radix(&digits, 16) else { return self.last(bytes, request) };
            if size == 0 {
                break;
            }
            if bytes.len() < size {
                return self.last(bytes, request);
            }
            *bytes = bytes.get(size..)?;
            if self.line(bytes).is_none_or(|rest| !rest.is_empty()) {
                return self.last(bytes, request);
            }
        }
        loop {
            match self.line(bytes) {
                None => return self.last(bytes, request),
                Some([]) => return Some(request),
                Some(_) => {}
            }
        }
    }

    /// The body is cut short or wrong: the server answers and reads no further.
    #[expect(clippy::unused_self, reason = "reads as what the server does")]
    fn last(&self, bytes: &mut &[u8], request: Request) -> Option<Request> {
        *bytes = &[];
        Some(request)
    }
}

pub fn dns(bytes: &[u8]) {
    let names = Mutex::new(Names::default());
    if let Some(reply) = resolver::answer(bytes, &names, |name| name == "intranet") {
        assert_eq!(reply.get(..2), bytes.get(..2), "an answer bears its question's number");
        assert!(reply.get(2).is_some_and(|flags| flags & 0x80 != 0), "an answer says that it is one");
    }
    if let Some(name) = crate::text(bytes).and_then(normal) {
        assert_eq!(normal(&name), Some(name), "a normal name is its own normal form");
    }
}

pub fn guest(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(_)) = creto_runtime::guest::read_event(&mut rest) {}
}
