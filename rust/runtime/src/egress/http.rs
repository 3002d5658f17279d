//! Follows the requests of a plain HTTP/1 connection, so that each of them names the host that was agreed to (RFC 9110, RFC 9112).
//!
//! Stricter than servers are: what two parsers might read in two ways is refused.

use super::desk::Request;

const MOST_HEAD: usize = 65_536;

/// Where in the stream of requests the next byte belongs.
#[derive(Debug)]
enum Place {
    Head(Vec<u8>),
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
                        forward.extend_from_slice(line);
                        self.place = if line.len() == 2 { Place::Head(Vec::new()) } else { Place::Trailer(Vec::new()) };
                    }
                }
            }
        }
        Ok(())
    }
}

/// True where the first bytes can only be an HTTP/1 request: a method and a space.
pub fn looks_like_http(bytes: &[u8]) -> bool {
    let method: Vec<u8> = bytes.iter().copied().take(24).take_while(u8::is_ascii_uppercase).collect();
    (3..=20).contains(&method.len()) && bytes.get(method.len()) == Some(&b' ')
}

fn read_head(head: &[u8], host: &str, port: u16) -> Result<(Request, Place), &'static str> {
    let text = std::str::from_utf8(head).map_err(|_| "a request head that is not UTF-8")?;
    let text = text.strip_suffix("\r\n\r\n").ok_or("a request head without an end")?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err("a request line that is not HTTP/1");
    };
    if method == "CONNECT" {
        return Err("CONNECT, which would open a second way out");
    }
    let same = |authority: &str| {
        let (name, given) = authority.rsplit_once(':').map_or((authority, None), |(name, given)| (name, Some(given)));
        name.eq_ignore_ascii_case(host) && given.is_none_or(|given| given.parse() == Ok(port))
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
    let (mut hosts, mut length, mut chunked) = (0, None, false);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a header line without a colon")?;
        let value = value.trim_matches([' ', '\t']);
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
            return Err("a header name with other characters than letters, digits and signs");
        }
        if value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
            return Err("a control character in a header");
        }
        match name.to_ascii_lowercase().as_str() {
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
                chunked = true;
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
        (false, Some(length)) => Place::Body(length),
    };
    Ok((Request { method: method.to_owned(), target: target.to_owned() }, next))
}

fn chunk_size(line: &[u8]) -> Result<u64, &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "a chunk size that is no number")?;
    let size = text.trim_end_matches("\r\n").split(';').next().unwrap_or_default();
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
        ] {
            assert!(read(head.as_bytes(), 1000).0.is_err(), "{head}");
        }
    }
}
