//! Takes connections in the gateway namespace, finds their names, asks at the desk, and carries bytes.

use super::desk::{Desk, Destination, Event, Request, Verdict};
use super::http::{Requests, is_http};
use super::names::{Names, normal};
use super::{dns, tls};
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a human may take before the connection is reset, with its question still open.
const PATIENCE: Duration = Duration::from_secs(55);
/// How long to wait for the program's first bytes before taking the server for the one who speaks first.
const FIRST_WORD: Duration = Duration::from_millis(250);
/// How long a program may take over words that must come.
const SLOW_WORD: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(15);
const MOST_CONNECTIONS: usize = 256;
const STACK: usize = 256 * 1024;

/// Names that lead to an address of the operator's choosing, loopback included; every other name is resolved and must be public.
pub type Upstreams = HashMap<String, SocketAddr>;

/// The proxy of one sandbox; ends when dropped.
pub struct Egress {
    shared: Arc<Shared>,
}

struct Shared {
    desk: Arc<Desk>,
    names: Mutex<Names>,
    upstreams: Upstreams,
    live: AtomicUsize,
    over: AtomicBool,
}

impl Egress {
    /// Starts to serve a wire's listeners.
    pub fn start(connections: TcpListener, questions: UdpSocket, upstreams: Upstreams, desk: Arc<Desk>) -> Result<Self> {
        let shared = Arc::new(Shared { desk, names: Mutex::default(), upstreams, live: AtomicUsize::new(0), over: AtomicBool::new(false) });
        questions.set_read_timeout(Some(Duration::from_millis(200)))?;
        connections.set_nonblocking(true)?;
        let (for_names, for_connections) = (shared.clone(), shared.clone());
        thread("creto-names", move || for_names.serve_names(&questions))?;
        thread("creto-egress", move || for_connections.serve(&connections))?;
        Ok(Self { shared })
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.desk.close();
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work).map(drop).map_err(Error::from)
}

impl Shared {
    fn over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn serve_names(&self, socket: &UdpSocket) {
        let mut buffer = [0; 1500];
        while !self.over() {
            let Ok((got, from)) = socket.recv_from(&mut buffer) else { continue };
            let known = |name: &str| self.upstreams.contains_key(name);
            if let Some(reply) = buffer.get(..got).and_then(|question| dns::answer(question, &self.names, known)) {
                // A lost answer is asked for again; that is DNS.
                let _ = socket.send_to(&reply, from);
            }
        }
    }

    fn serve(self: &Arc<Self>, listener: &TcpListener) {
        while !self.over() {
            if !readable(listener, Duration::from_millis(200)) {
                continue;
            }
            let Ok((stream, _)) = listener.accept() else { continue };
            if self.live.fetch_add(1, Ordering::AcqRel) >= MOST_CONNECTIONS {
                self.live.fetch_sub(1, Ordering::AcqRel);
                reset(&stream);
                continue;
            }
            let shared = self.clone();
            let started = thread("creto-connection", move || {
                shared.connection(stream);
                shared.live.fetch_sub(1, Ordering::AcqRel);
            });
            if started.is_err() {
                self.live.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    fn connection(&self, program: TcpStream) {
        if let Err(refusal) = self.carry(&program) {
            reset(&program);
            if let Some(event) = refusal {
                self.desk.tell(event);
            }
        }
    }

    /// Everything from the first byte to the last. `Err` resets the connection, and tells the holder why, where nobody was asked.
    fn carry(&self, program: &TcpStream) -> Result<(), Option<Event>> {
        program.set_nonblocking(false).map_err(|_| None)?;
        let SocketAddr::V4(wanted) = program.local_addr().map_err(|_| None)? else { return Err(None) };
        let refused = |host: String, reason: &str| Some(Event::Refused { host, port: wanted.port(), reason: reason.into() });
        let Some(host) = self.names.lock().name(*wanted.ip()).map(str::to_owned) else {
            return Err(refused(wanted.ip().to_string(), "a literal address: connect by name, so that policy can see where to"));
        };
        let first = first_bytes(program, wanted.port()).map_err(|_| None)?;
        let mut filter = Filter::new(&host, wanted.port());
        let mut forward = Vec::new();
        let mut requests = Vec::new();
        filter.read(&first, &mut forward, &mut requests).map_err(|reason| refused(host.clone(), &reason))?;
        let destination = Destination { host: host.clone(), port: wanted.port(), scheme: filter.scheme(), request: None };
        let id = match self.desk.ask(&destination, None, PATIENCE) {
            Verdict::Allowed(id) => id,
            Verdict::Denied | Verdict::Pending => return Err(None),
        };
        let closed = |sent, received, error: Option<String>| Event::Closed { id, sent, received, error };
        let server = match self.connect(&destination) {
            Ok(server) => server,
            Err(reason) => return Err(Some(closed(0, 0, Some(reason)))),
        };
        let mut pump = Pump { shared: self, id, destination, program, server: &server, filter, sent: 0, received: 0 };
        let ended = pump.agreed(requests).and_then(|()| pump.run(&forward));
        let (sent, received) = (pump.sent, pump.received);
        let _ = server.shutdown(Shutdown::Both);
        match ended {
            Ok(()) => {
                self.desk.tell(closed(sent, received, None));
                Ok(())
            }
            Err(reason) => Err(Some(closed(sent, received, Some(reason)))),
        }
    }

    fn connect(&self, to: &Destination) -> Result<TcpStream, String> {
        if let Some(upstream) = self.upstreams.get(&to.host) {
            return TcpStream::connect_timeout(upstream, CONNECT).map_err(|e| format!("`{}` is configured as {upstream}: {e}", to.host));
        }
        // Absolute, so that no search list of this machine makes another name of the one that was agreed to.
        let name = format!("{}.", to.host);
        let found = (name.as_str(), to.port).to_socket_addrs().map_err(|e| format!("`{}` cannot be resolved: {e}", to.host))?;
        let (public, hidden): (Vec<_>, Vec<_>) = found.partition(|address| is_public(address.ip()) && !is_own(*address));
        let mut last = match hidden.first() {
            Some(_) => format!(
                "`{}` leads to an address that is not public; name it in `runtime.hosts`, or by `creto run --host`, to allow that",
                to.host
            ),
            None => format!("`{}` has no address", to.host),
        };
        for address in public {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => return Ok(stream),
                Err(e) => last = format!("`{}`: {e}", to.host),
            }
        }
        Err(last)
    }
}

/// What the program's first bytes turned out to be.
enum Kind {
    Unknown(Vec<u8>),
    Hello(Vec<u8>),
    Http(Requests),
    Checked(Option<&'static str>),
}

/// Checks what the program sends, from its first byte on.
struct Filter {
    host: String,
    port: u16,
    kind: Kind,
}

impl Filter {
    fn new(host: &str, port: u16) -> Self {
        Self { host: host.into(), port, kind: Kind::Unknown(Vec::new()) }
    }

    fn scheme(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Hello(_) => Some("https"),
            Kind::Http(_) => Some("http"),
            Kind::Checked(scheme) => scheme,
            Kind::Unknown(_) => None,
        }
    }

    /// Lets bytes through to `forward`, or says why the connection must end.
    fn read(&mut self, bytes: &[u8], forward: &mut Vec<u8>, requests: &mut Vec<Request>) -> Result<(), String> {
        if let Kind::Unknown(seen) = &mut self.kind {
            seen.extend_from_slice(bytes);
            // A request that is sent letter by letter must not pass unread.
            let Some(http) = is_http(seen) else { return Ok(()) };
            let seen = std::mem::take(seen);
            self.kind = match seen.first() {
                Some(22) => Kind::Hello(Vec::new()),
                _ if http => Kind::Http(Requests::new(&self.host, self.port)),
                _ if matches!(self.port, 80 | 443) => return Err("neither TLS nor HTTP on a port of the Web".into()),
                _ => Kind::Checked(None),
            };
            return self.read(&seen, forward, requests);
        }
        match &mut self.kind {
            Kind::Hello(seen) => {
                seen.extend_from_slice(bytes);
                match tls::hello(seen) {
                    tls::Hello::Incomplete => {}
                    tls::Hello::Bad(reason) => return Err(reason.into()),
                    tls::Hello::Name(name) if normal(&name).as_deref() == Some(&self.host) => {
                        forward.append(seen);
                        self.kind = Kind::Checked(Some("https"));
                    }
                    tls::Hello::Name(name) => return Err(format!("TLS for `{name}` on a connection to `{}`", self.host)),
                }
                Ok(())
            }
            Kind::Http(parser) => parser.read(bytes, forward, requests).map_err(|reason| format!("plain HTTP with {reason}")),
            Kind::Checked(_) | Kind::Unknown(_) => {
                forward.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

struct Pump<'a> {
    shared: &'a Shared,
    /// The question that let the connection through.
    id: u64,
    destination: Destination,
    program: &'a TcpStream,
    server: &'a TcpStream,
    filter: Filter,
    sent: u64,
    received: u64,
}

impl Pump<'_> {
    /// Where the connection was agreed to before the program had said a word, asks again once its words tell what it is: a policy about
    /// schemes could else be passed by saying nothing at first.
    fn scheme_agreed(&mut self) -> Result<(), String> {
        let scheme = self.filter.scheme();
        if scheme.is_some() && self.destination.scheme.is_none() {
            self.destination.scheme = scheme;
            if !matches!(self.shared.desk.ask(&self.destination, Some(self.id), PATIENCE), Verdict::Allowed(_)) {
                return Err(format!("{} is not allowed here", scheme.unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// Asks about each plain HTTP request before a byte of it goes out.
    fn agreed(&self, requests: Vec<Request>) -> Result<(), String> {
        for request in requests {
            let text = format!("{} {} is not allowed", request.method, request.target);
            let asked = Destination { request: Some(request), ..self.destination.clone() };
            if !matches!(self.shared.desk.ask(&asked, Some(self.id), PATIENCE), Verdict::Allowed(_)) {
                return Err(text);
            }
        }
        Ok(())
    }

    /// Carries both ways until both sides have ended.
    fn run(&mut self, first: &[u8]) -> Result<(), String> {
        let text = |e: io::Error| e.to_string();
        let (mut program, mut server) = (self.program, self.server);
        for stream in [program, server] {
            stream.set_nodelay(true).map_err(text)?;
            stream.set_write_timeout(Some(Duration::from_secs(60))).map_err(text)?;
        }
        server.write_all(first).map_err(text)?;
        self.sent += first.len() as u64;
        let (mut upward, mut downward) = (true, true);
        let mut buffer = vec![0; 65_536];
        while upward || downward {
            let (up, down) = wait_either(program, upward, server, downward, Duration::from_millis(500)).map_err(text)?;
            if self.shared.over() {
                return Err("the sandbox has ended".into());
            }
            if self.shared.desk.is_withdrawn(self.id) {
                return Err("what let it through counts no more".into());
            }
            if up {
                let got = program.read(&mut buffer).map_err(text)?;
                let (mut forward, mut requests) = (Vec::new(), Vec::new());
                self.filter.read(buffer.get(..got).unwrap_or_default(), &mut forward, &mut requests)?;
                self.scheme_agreed()?;
                self.agreed(requests)?;
                server.write_all(&forward).map_err(text)?;
                self.sent += forward.len() as u64;
                if got == 0 {
                    upward = false;
                    let _ = server.shutdown(Shutdown::Write);
                }
            }
            if down {
                let got = server.read(&mut buffer).map_err(text)?;
                program.write_all(buffer.get(..got).unwrap_or_default()).map_err(text)?;
                self.received += got as u64;
                if got == 0 {
                    downward = false;
                    let _ = program.shutdown(Shutdown::Write);
                }
            }
        }
        Ok(())
    }
}

/// The program's first bytes: a whole ClientHello or HTTP head where it is one, nothing where the server is expected to speak first, which
/// none does on a port of the Web.
fn first_bytes(program: &TcpStream, port: u16) -> io::Result<Vec<u8>> {
    let web = matches!(port, 80 | 443);
    let mut deadline = Instant::now() + if web { SLOW_WORD } else { FIRST_WORD };
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if !readable(program, deadline.saturating_duration_since(Instant::now())) {
            return if bytes.is_empty() && !web { Ok(bytes) } else { Err(io::ErrorKind::TimedOut.into()) };
        }
        let mut from = program;
        let got = from.read(&mut buffer)?;
        if got == 0 && bytes.is_empty() && web {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if bytes.is_empty() {
            // Once, and not with every byte: who trickles would be waited for as long as it likes.
            deadline = Instant::now() + SLOW_WORD;
        }
        bytes.extend_from_slice(buffer.get(..got).unwrap_or_default());
        let hello = bytes.first() == Some(&22) && tls::hello(&bytes) == tls::Hello::Incomplete;
        if got == 0 || !(hello || is_http(&bytes).is_none()) {
            return Ok(bytes);
        }
    }
}

/// Ends a connection with a reset, so that the program sees a refusal, not an empty answer.
fn reset(stream: &TcpStream) {
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Read);
}

fn timespec(wait: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(wait.subsec_nanos()) }
}

fn readable<F: std::os::fd::AsFd>(fd: &F, wait: Duration) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timespec(wait))).is_ok_and(|ready| ready > 0)
}

fn wait_either(a: &TcpStream, want_a: bool, b: &TcpStream, want_b: bool, wait: Duration) -> io::Result<(bool, bool)> {
    let interest = |wanted| if wanted { PollFlags::IN } else { PollFlags::empty() };
    let mut both = [PollFd::new(a, interest(want_a)), PollFd::new(b, interest(want_b))];
    match poll(&mut both, Some(&timespec(wait))) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let [a, b] = both;
    let ready = |fd: &PollFd<'_>, wanted| wanted && !fd.revents().is_empty();
    let gone = |fd: &PollFd<'_>| fd.revents().contains(PollFlags::ERR);
    if gone(&a) || gone(&b) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok((ready(&a, want_a), ready(&b, want_b)))
}

/// True for addresses of the public Internet: no loopback, private, link-local, metadata, shared, reserved or multicast ones (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4_mapped() {
                return is_public_v4(v4);
            }
            let [a, b, ..] = v6.segments();
            // 2000::/3 is the global unicast space; cut out 6to4, Teredo and the documentation prefix, which lead elsewhere.
            (a & 0xe000) == 0x2000 && a != 0x2002 && !(a == 0x2001 && (b < 0x200 || b == 0xdb8)) && a != 0x3fff
        }
    }
}

/// True for an address of this machine itself, also a public one: what listens there is often shut to the outside by a fence that a connection
/// from here would not pass. The kernel gives a socket to such an address that very address as its own.
fn is_own(address: SocketAddr) -> bool {
    let any: SocketAddr = if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    // Connecting a datagram socket sends nothing; where there is no way to the address there is no harm either.
    UdpSocket::bind(any)
        .and_then(|socket| socket.connect(address).and_then(|()| socket.local_addr()))
        .is_ok_and(|own| own.ip() == address.ip())
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        for hidden in [
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "192.168.0.1",
            "0.0.0.0",
            "198.18.0.1",
            "224.0.0.1",
            "::1",
            "fd00:ec2::254",
            "fe80::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
            "2001:db8::1",
        ] {
            assert!(!is_public(hidden.parse().unwrap()), "{hidden}");
        }
        for public in ["8.8.8.8", "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn a_public_address_of_this_machine_is_its_own() {
        assert!(is_own("127.0.0.1:80".parse().unwrap()));
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: making a network namespace needs root here");
            return;
        }
        // In a namespace where every address is local, as on a machine that bears the public address itself.
        std::thread::spawn(|| {
            crate::sys::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
            let here: SocketAddr = "93.184.215.14:80".parse().unwrap();
            assert!(is_public(here.ip()) && !is_own(here), "no way there yet");
            crate::network::bring_up(std::net::Ipv4Addr::new(93, 184, 215, 14)).unwrap();
            assert!(is_own(here));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_connection_speaks_for_its_own_name_only() {
        let read = |bytes: &[u8], port| {
            let mut filter = Filter::new("example.org", port);
            let mut forward = Vec::new();
            filter.read(bytes, &mut forward, &mut Vec::new()).map(|()| (forward == bytes, filter.scheme()))
        };
        let right = tls::tests::client_hello(Some("example.org"), 4000);
        let wrong = tls::tests::client_hello(Some("other.example"), 4000);
        assert_eq!(read(&right, 443), Ok((true, Some("https"))));
        assert_eq!(read(&wrong, 443).unwrap_err(), "TLS for `other.example` on a connection to `example.org`");
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", 80), Ok((true, Some("http"))));
        assert!(read(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", 80).is_err());
        assert_eq!(read(b"SSH-2.0-x\r\n", 22), Ok((true, None)));
        assert!(read(b"\0\0", 443).is_err());
        let mut filter = Filter::new("example.org", 8000);
        let mut forward = Vec::new();
        let mut sent = b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n".iter();
        assert!(sent.any(|byte| filter.read(&[*byte], &mut forward, &mut Vec::new()).is_err()));
        assert!(forward.is_empty());
    }
}
