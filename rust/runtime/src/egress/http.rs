//! Follows the requests of a plain HTTP/1 connection, so that each of them names the host that was agreed to (RFC 9110, RFC 9112).
//!
//! Stricter than servers are: what two parsers might read in two ways is refused.

use super::desk::Request;

const MOST_HEAD: usize = 65_536;

/// Where in the stream of requests the next byte belongs.
#[derive(Debug)]
enum Place {
    Head(Vec<u8>),
    /// A body's first line, held back, and how much of the body is to come.
    Opening(Vec<u8>, u64),
    Body(u64),
    ChunkSize(Vec<u8>),
    ChunkData(u64),
    ChunkEnd(u8),
    Trailer(Vec<u8>),
}

/// Checks one connection's requests.
#[derive(Debug)]
pub struct Requests {
    host: String,
    port: u16,
    place: Place,
}

impl Requests {
    /// For a connection to `host`, in its normal form.
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, place: Place::Head(Vec::new()) }
    }

    /// Reads the next bytes. `Err` says why the connection must end; `forward` gets what may pass: a head only once it is whole and right.
    pub fn read(&mut self, mut bytes: &[u8], forward: &mut Vec<u8>, seen: &mut Vec<Request>) -> Result<(), &'static str> {
        while let Some((&byte, rest)) = bytes.split_first() {
            match &mut self.place {
                Place::Head(head) => {
                    bytes = rest;
                    head.push(byte);
                    if head.len() > MOST_HEAD {
                        return Err("a request head of more than 64 KiB");
                    }
                    if head.ends_with(b"\r\n\r\n") {
                        let (request, next) = read_head(head, &self.host, self.port)?;
                        forward.extend_from_slice(head);
                        seen.push(request);
                        self.place = next;
                    }
                }
                Place::Opening(held, left) => {
                    bytes = rest;
                    *left -= 1;
                    // An empty line is no request. It goes out, so that what is held back begins where a request would.
                    if held.is_empty() && is_space(byte) {
                        forward.push(byte);
                    } else {
                        held.push(byte);
                    }
                    // Servers there are that do not read the body of a request that they expect none of: it is their next request.
                    let told = if byte == b'\n' || held.len() <= EARLY || *left == 0 { begins_request(held) } else { None };
                    if told == Some(true) {
                        return Err("a body that a server could take for a request");
                    }
                    if told.is_some() || *left == 0 || held.len() > MOST_HEAD {
                        forward.append(held);
                        self.place = if *left == 0 { Place::Head(Vec::new()) } else { Place::Body(*left) };
                    }
                }
                Place::Body(left) | Place::ChunkData(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let (now, later) = bytes.split_at(take);
                    forward.extend_from_slice(now);
                    bytes = later;
                    *left -= take as u64;
                    if *left == 0 {
                        self.place = match self.place {
                            Place::ChunkData(_) => Place::ChunkEnd(0),
                            _ => Place::Head(Vec::new()),
                        };
                    }
                }
                Place::ChunkSize(line) => {
                    bytes = rest;
                    line.push(byte);
                    if line.len() > 256 {
                        return Err("a chunk size line of more than 256 bytes");
                    }
                    if line.ends_with(b"\r\n") {
                        let size = chunk_size(line)?;
                        forward.extend_from_slice(line);
                        self.place = if size == 0 { Place::Trailer(Vec::new()) } else { Place::ChunkData(size) };
                    }
                }
                Place::ChunkEnd(seen) => {
                    bytes = rest;
                    if byte != if *seen == 0 { b'\r' } else { b'\n' } {
                        return Err("a chunk that does not end where it says");
                    }
                    forward.push(byte);
                    self.place = if *seen == 0 { Place::ChunkEnd(1) } else { Place::ChunkSize(Vec::new()) };
                }
                Place::Trailer(line) => {
                    bytes = rest;
                    line.push(byte);
                    if line.len() > MOST_HEAD {
                        return Err("trailers of more than 64 KiB");
                    }
                    if line.ends_with(b"\r\n") {
                        // A bare line feed would end the trailers for some servers, and what follows it be a request that nobody saw.
                        if line.len() > 2 {
                            header(std::str::from_utf8(line).map_err(|_| "a trailer that is not UTF-8")?.trim_end_matches("\r\n"))?;
                        }
                        forward.extend_from_slice(line);
                        self.place = if line.len() == 2 { Place::Head(Vec::new()) } else { Place::Trailer(Vec::new()) };
                    }
                }
            }
        }
        Ok(())
    }
}

/// The longest method that is read as one.
const MOST_METHOD: usize = 20;
/// More of a first line than this is not waited for.
const MOST_LINE: usize = 8192;

/// Bytes of a body by which most show that they are no request.
const EARLY: usize = 64;

/// Whether some server would take the first bytes of a connection for a request: none while more are needed to tell. What is then read by
/// `Requests` must be one in the strict form, or the connection ends.
pub fn is_http(bytes: &[u8]) -> Option<bool> {
    begins_request(bytes).or_else(|| (bytes.len() > MOST_LINE).then_some(true))
}

/// As `is_http`, without an end to what is waited for.
fn begins_request(bytes: &[u8]) -> Option<bool> {
    // Servers pass over empty lines before a request, and some over spaces.
    let line = bytes.get(bytes.iter().take_while(|byte| is_space(**byte)).count()..).unwrap_or_default();
    let method = line.get(..line.iter().take_while(|byte| is_token(**byte)).count()).unwrap_or_default();
    match line.get(method.len()) {
        None => return None,
        Some(b' ' | b'\t') if !method.is_empty() => {}
        // Who parts words at other bytes than these two knows methods of letters alone; a binary protocol may begin with `0` and form feed.
        Some(byte) if is_word(method) && is_space(*byte) => {}
        Some(_) => return Some(false),
    }
    // A bare carriage return ends a line for some, and parts words for others.
    let first = line.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    // No server that takes such methods takes such lines, and git's own protocol begins so.
    if !is_word(method) && first.iter().any(|byte| byte.is_ascii_control() && !is_space(*byte)) {
        return Some(false);
    }
    if first.len() < line.len() && is_request_line(method, first) {
        return Some(true);
    }
    line.iter().position(|byte| *byte == b'\n').map(|end| is_request_line(method, line.get(..end).unwrap_or_default()))
}

/// Other protocols speak in lines too: `EHLO here`, `USER me`.
fn is_request_line(method: &[u8], line: &[u8]) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| is_space(*byte)).filter(|word| !word.is_empty()).skip(1).collect();
    let begins = |word: &[u8], with: &[u8]| word.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    let target = words.first().copied().unwrap_or_default();
    words.iter().any(|word| begins(word, b"HTTP/"))
        || (is_word(method) && [&b"/"[..], b"http:", b"https:"].iter().any(|start| begins(target, start)))
        // HTTP/0.9.
        || (method == b"GET" && words.len() == 1)
}

/// True for a method of the kind that servers know by name.
fn is_word(method: &[u8]) -> bool {
    !method.is_empty() && method.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_'))
}

/// What a method may consist of (RFC 9110, section 5.6.2); many servers take any.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What parts words for some server: Python's takes a line for Latin-1 and parts it at all that is space there.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | 0x1c..=b' ' | 0x85 | 0xa0)
}

fn read_head(head: &[u8], host: &str, port: u16) -> Result<(Request, Place), &'static str> {
    let text = std::str::from_utf8(head).map_err(|_| "a request head that is not UTF-8")?;
    let text = text.strip_suffix("\r\n\r\n").ok_or("a request head without an end")?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version @ ("HTTP/1.1" | "HTTP/1.0")), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("a request line that is not HTTP/1");
    };
    if method == "CONNECT" {
        return Err("CONNECT, which would open a second way out");
    }
    if method.is_empty() || method.len() > MOST_METHOD || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_') {
        return Err("a method with other characters than capital letters");
    }
    // A control character ends a line for some servers.
    if !target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a request target with other than printable ASCII characters");
    }
    // Clients keep it to themselves; to some servers all of it is the path, and `/a#/../b` leads to `/b`.
    if target.contains('#') {
        return Err("a request target with a fragment");
    }
    let same = |authority: &str| {
        let (name, given) = authority.rsplit_once(':').map_or((authority, None), |(name, given)| (name, Some(given)));
        name.eq_ignore_ascii_case(host) && given.is_none_or(|given| given == port.to_string())
    };
    let target = if let Some(absolute) = target.strip_prefix("http://") {
        let (authority, _) = absolute.split_at(absolute.find('/').unwrap_or(absolute.len()));
        if !same(authority) {
            return Err("a request target on another host");
        }
        absolute.get(authority.len()..).unwrap_or("/")
    } else if target.starts_with('/') || target == "*" {
        target
    } else {
        return Err("a request target of an unknown form");
    };
    let (mut hosts, mut length, mut chunked, mut upgrade) = (0, None, false, false);
    for line in lines {
        let (name, value) = header(line)?;
        let name = name.to_ascii_lowercase();
        // To servers that hand headers on as variables (CGI, WSGI) the two signs are one.
        let usual = name.replace('_', "-");
        if IN_PLACE.contains(&usual.as_str()) {
            return Err("a header that some servers take in place of the method, path or host");
        }
        if usual != name && FRAMING.contains(&usual.as_str()) {
            return Err("a header name with `_` that some servers read as `-`");
        }
        match name.as_str() {
            "host" => {
                hosts += 1;
                if !same(value) {
                    return Err("a Host header that names another host");
                }
            }
            "content-length" => {
                if length.is_some() || value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
                    return Err("a Content-Length that is no single number");
                }
                length = Some(value.parse::<u64>().map_err(|_| "a Content-Length beyond all sizes")?);
            }
            "transfer-encoding" => {
                if chunked || !value.eq_ignore_ascii_case("chunked") {
                    return Err("a Transfer-Encoding other than chunked");
                }
                // Some servers pass over it in HTTP/1.0, and would read the body as requests (RFC 9112, section 6.1).
                if version == "HTTP/1.0" {
                    return Err("a Transfer-Encoding in HTTP/1.0");
                }
                chunked = true;
            }
            "upgrade" => upgrade = true,
            // A server in front of another leaves out what is named here.
            "connection" if value.split(',').any(|option| FRAMING.contains(&option.trim().to_ascii_lowercase().as_str())) => {
                return Err("a Connection header that takes away what tells where the request goes or ends");
            }
            _ => {}
        }
    }
    if hosts != 1 {
        return Err("not exactly one Host header");
    }
    let next = match (chunked, length) {
        (true, Some(_)) => return Err("both Content-Length and Transfer-Encoding"),
        (true, None) => Place::ChunkSize(Vec::new()),
        (false, None | Some(0)) => Place::Head(Vec::new()),
        (false, Some(length)) => Place::Opening(Vec::new(), length),
    };
    // Servers there are that speak the other protocol at once, and not after the body.
    if upgrade && !matches!(next, Place::Head(_)) {
        return Err("an Upgrade with a body, which could be read as another protocol");
    }
    Ok((Request { method: method.to_owned(), target: target.to_owned() }, next))
}

/// What some servers, and much that runs on them, take in place of the request's own method, path or host.
const IN_PLACE: &[&str] = &[
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-uri",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];
/// What tells where a request goes and where it ends.
const FRAMING: &[&str] = &["host", "content-length", "transfer-encoding"];

/// The name and value of a header line.
fn header(line: &str) -> Result<(&str, &str), &'static str> {
    let (name, value) = line.split_once(':').ok_or("a header line without a colon")?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err("a header name with other characters than letters, digits and signs");
    }
    if value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        return Err("a control character in a header");
    }
    Ok((name, value.trim_matches([' ', '\t'])))
}

fn chunk_size(line: &[u8]) -> Result<u64, &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "a chunk size that is no number")?;
    let text = text.strip_suffix("\r\n").unwrap_or(text);
    // In an extension too a bare line feed ends the line for some servers.
    if text.bytes().any(|b| !(0x20..0x7f).contains(&b)) {
        return Err("a control character in a chunk's size line");
    }
    let size = text.split(';').next().unwrap_or_default();
    if size.is_empty() || size.len() > 15 || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("a chunk size that is no number");
    }
    u64::from_str_radix(size, 16).map_err(|_| "a chunk size that is no number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8], step: usize) -> (Result<(), &'static str>, Vec<u8>, Vec<Request>) {
        let (mut forward, mut seen) = (Vec::new(), Vec::new());
        let mut requests = Requests::new("example.org", 80);
        let result = bytes.chunks(step).try_for_each(|part| requests.read(part, &mut forward, &mut seen));
        (result, forward, seen)
    }

    const GOOD: &str = "POST /a HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\n\r\nhello\
        PUT http://EXAMPLE.org:80/b?c HTTP/1.1\r\nhost: Example.org:80\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n\
        GET /d HTTP/1.1\r\nHost: example.org\r\n\r\n";

    proptest! {
        #[test]
        fn what_is_right_passes_unchanged_however_it_is_cut(step in 1usize..200) {
            let (result, forward, seen) = read(GOOD.as_bytes(), step);
            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!(forward, GOOD.as_bytes());
            let targets: Vec<&str> = seen.iter().map(|r| r.target.as_str()).collect();
            prop_assert_eq!(targets, ["/a", "/b?c", "/d"]);
        }

        #[test]
        fn any_bytes_are_read_or_refused_but_never_crash(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes, 17);
        }
    }

    #[test]
    fn a_second_request_for_another_host_ends_the_connection_before_it_is_sent() {
        let bytes = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\nGET /x HTTP/1.1\r\nHost: other.example\r\n\r\n";
        let (result, forward, seen) = read(bytes, 11);
        assert_eq!(result, Err("a Host header that names another host"));
        assert_eq!(forward.len(), b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".len());
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn no_request_hides_behind_a_bare_line_feed_in_a_chunked_body() {
        let head = "POST / HTTP/1.1\r\nHost: example.org\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (body, why) in [
            ("2;\nxx\r\n0\r\n\r\nab\r\n", "in a chunk's extension"),
            ("0\r\nX: y\n\nGET /hidden HTTP/1.1\r\nHost: example.org\r\n\r\n", "in a trailer"),
            ("0\r\nGET /hidden HTTP/1.1\r\n\r\n", "a trailer that is a request"),
        ] {
            let (result, forward, seen) = read(format!("{head}{body}").as_bytes(), 1000);
            assert!(result.is_err(), "{why}");
            assert!(!String::from_utf8(forward).unwrap().contains("hidden"), "{why}");
            assert_eq!(seen.len(), 1);
        }
    }

    #[test]
    fn no_request_hides_in_the_body_of_another() {
        let hidden = "DELETE /hidden HTTP/1.1\r\nHost: example.org\r\n\r\n";
        for before in ["", "\r\n", " "] {
            let body = format!("{before}{hidden}");
            let head = format!("GET / HTTP/1.1\r\nHost: example.org\r\nContent-Length: {}\r\n\r\n", body.len());
            for step in [1, 7, 1000] {
                let (result, forward, _) = read(format!("{head}{body}").as_bytes(), step);
                assert_eq!(result, Err("a body that a server could take for a request"));
                assert!(!String::from_utf8(forward).unwrap().contains("DELETE"), "{before:?}");
            }
        }
        let upgrade = "GET / HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nContent-Length: 9\r\n\r\n";
        assert_eq!(read(upgrade.as_bytes(), 1000).0, Err("an Upgrade with a body, which could be read as another protocol"));
    }

    #[test]
    fn a_body_that_is_no_request_passes_unchanged() {
        let long = format!("one two {}", "x".repeat(100_000));
        for body in ["{\"a\": 1}", "a=b&c=d", "letters", "two words\nGET / HTTP/1.1\r\n", "\r\n\r\n", "\0\x01\x02", &long] {
            let head = format!("POST / HTTP/1.1\r\nHost: example.org\r\nContent-Length: {}\r\n\r\n", body.len());
            let whole = format!("{head}{body}GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
            for step in [1, 7, 4096] {
                let (result, forward, seen) = read(whole.as_bytes(), step);
                assert_eq!((result, seen.len()), (Ok(()), 2), "{body:.20}");
                assert_eq!(forward, whole.as_bytes());
            }
        }
    }

    #[test]
    fn what_a_server_may_take_for_http_is_read_as_http_and_other_protocols_are_not() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "\r\nGET / HTTP/1.1\n",
            "\n\n\rPOST /x http/1.0\r",
            "get /\n",
            "GET\t/\tHTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n",
            " GET / HTTP/1.1\r\n",
            "GET\x0c/\x0cHTTP/1.1\r\n",
            "GET\r/\rHTTP/1.1\n",
            "GET /\x01\0 HTTP/1.1\r\n",
            "GET x\n",
            "X1 / HTTP/1.1\r\n",
            "QUITE-A-LONG-METHOD-OF-LETTERS / HTTP/1.1\r\n",
        ] {
            assert_eq!(is_http(line.as_bytes()), Some(true), "{line:?}");
            let told = line.trim_end().len();
            assert!((0..=told).all(|end| is_http(&line.as_bytes()[..end]).is_none()), "{line:?}");
        }
        for line in [
            "SSH-2.0-x\r\n",
            "EHLO here\r\n",
            "USER me\r\n",
            "get key\r\n",
            "*1\r\n$4\r\nPING\r\n",
            "0032git-upload-pack /project\0host=a",
            "0\x0c\x02\x01\x01",
            "{\"a\": 1}",
            "\x16\x03\x01",
            "\0",
        ] {
            assert_eq!(is_http(line.as_bytes()), Some(false), "{line:?}");
        }
        assert_eq!(is_http(&[b'\n'; 9000]), Some(true));
    }

    #[test]
    fn what_two_parsers_may_read_in_two_ways_is_refused() {
        for head in [
            "CONNECT other:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
            "GET http://other.example/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.org\r\nHost: other.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.org\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : example.org\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.org\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.org\r\nContent-Length: +1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.org\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.org:81\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.org:+80\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
            "get / HTTP/1.1\r\nHost: example.org\r\n\r\n",
            "G\x1bT / HTTP/1.1\r\nHost: example.org\r\n\r\n",
            "GET /\rHost:other HTTP/1.1\r\nHost: example.org\r\n\r\n",
            "GET /\u{202e} HTTP/1.1\r\nHost: example.org\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: example.org\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: example.org\r\nX-HTTP-Method-Override: DELETE\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: example.org\r\nX_Http_Method: DELETE\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.org\r\nx-original-url: /hidden\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.org\r\nForwarded: host=other.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.org\r\nContent_Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\nConnection: close, content-length\r\n\r\n",
            "GET /a#/../hidden HTTP/1.1\r\nHost: example.org\r\n\r\n",
        ] {
            assert!(read(head.as_bytes(), 1000).0.is_err(), "{head}");
        }
    }
}
