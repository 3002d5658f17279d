//! Just enough netlink to make one virtual wire, and just enough nf_tables to steer what comes over it; no `ip`, no `nft` needed.
//!
//! Sources: rtnetlink(7), linux/if_link.h, linux/netfilter/nf_tables.h. Every request is acknowledged before the next is sent.

use creto_enablement_common::{Error, Result, ResultExt};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use std::io;
use std::os::fd::OwnedFd;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

/// A message under construction: attributes are appended, lengths are filled in when it closes.
#[derive(Default)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Starts with the fixed part that precedes the attributes.
    pub fn new(fixed: &[u8]) -> Self {
        Self { bytes: fixed.to_vec() }
    }

    /// Appends one attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        // INVARIANT: every attribute of this module is far below 64 KiB.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a number in network order, as nf_tables wants them.
    #[must_use]
    pub fn with_be(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_be_bytes())
    }

    /// Appends text with its closing zero.
    #[must_use]
    pub fn with_text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    /// Appends an attribute that holds attributes.
    #[must_use]
    pub fn with_nested(self, kind: u16, inner: &Self) -> Self {
        self.with(kind | NESTED, &inner.bytes)
    }

    /// Appends attributes after a fixed part, as veth's peer has them.
    #[must_use]
    pub fn with_message(self, kind: u16, inner: &Self) -> Self {
        self.with(kind, &inner.bytes)
    }
}

/// One netlink socket, in the network namespace of the thread that opened it.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// For links, addresses and routes.
    pub fn route() -> Result<Self> {
        Self::open(None)
    }

    /// For nf_tables.
    pub fn netfilter() -> Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(io::Error::from)
            .context(|| "opening a netlink socket".into())?;
        Ok(Self { socket, sequence: 0 })
    }

    fn frame(&mut self, kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let length = u32::try_from(body.len() + 16).unwrap_or(u32::MAX);
        let mut frame = Vec::with_capacity(body.len() + 16);
        frame.extend_from_slice(&length.to_ne_bytes());
        frame.extend_from_slice(&kind.to_ne_bytes());
        frame.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        frame.extend_from_slice(&self.sequence.to_ne_bytes());
        frame.extend_from_slice(&0_u32.to_ne_bytes());
        frame.extend_from_slice(body);
        frame.resize(frame.len().next_multiple_of(4), 0);
        frame
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        sendto(&self.socket, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).map_err(io::Error::from)?;
        Ok(())
    }

    /// Waits for the acknowledgement of the message numbered `sequence`; an error in any earlier one of the batch counts too.
    fn acknowledged(&self, sequence: u32) -> Result<()> {
        let mut buffer = [0_u8; 8192];
        loop {
            let (got, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty()).map_err(io::Error::from)?;
            let mut rest = buffer.get(..got).unwrap_or_default();
            while let (Some(length), Some(kind), Some(number)) = (word(rest, 0), half(rest, 4), word(rest, 8)) {
                // 2 is NLMSG_ERROR, which also carries the acknowledgement, as error 0.
                if kind == 2 {
                    let code = word(rest, 16).map_or(0, u32::cast_signed);
                    if code != 0 {
                        return Err(Error::from(io::Error::from_raw_os_error(-code)));
                    }
                    if number == sequence {
                        return Ok(());
                    }
                }
                rest = rest.get((length as usize).next_multiple_of(4).max(16)..).unwrap_or_default();
            }
        }
    }

    fn ask(&mut self, kind: u16, flags: u16, message: &Message) -> Result<()> {
        let frame = self.frame(kind, flags | ACK, &message.bytes);
        self.send(&frame)?;
        self.acknowledged(self.sequence)
    }

    /// Makes a pair of virtual Ethernet devices: `name` here, and one of the same name in the namespace `peer`.
    pub fn veth(&mut self, name: &str, peer: &OwnedFd) -> Result<()> {
        use std::os::fd::AsRawFd;
        let namespace = peer.as_raw_fd().cast_unsigned();
        let other = Message::new(&[0; 16]).with_text(3, name).with(28, &namespace.to_ne_bytes());
        let info = Message::default().with_text(1, "veth").with_nested(2, &Message::default().with_message(1, &other));
        let message = Message::new(&[0; 16]).with_text(3, name).with_nested(18, &info);
        self.ask(16, CREATE | EXCLUSIVE, &message).context(|| format!("making the virtual wire `{name}`"))
    }

    /// Brings an interface up.
    pub fn up(&mut self, name: &str) -> Result<()> {
        let mut fixed = [0_u8; 16];
        put(&mut fixed, 4, &self.index(name)?.to_ne_bytes());
        put(&mut fixed, 8, &1_u32.to_ne_bytes());
        put(&mut fixed, 12, &1_u32.to_ne_bytes());
        self.ask(16, 0, &Message::new(&fixed)).context(|| format!("bringing up `{name}`"))
    }

    /// Gives an interface an IPv4 address.
    pub fn address(&mut self, name: &str, address: [u8; 4], prefix: u8) -> Result<()> {
        let mut fixed = [2, prefix, 0, 0, 0, 0, 0, 0];
        put(&mut fixed, 4, &self.index(name)?.to_ne_bytes());
        let message = Message::new(&fixed).with(2, &address).with(1, &address);
        self.ask(20, CREATE | EXCLUSIVE, &message).context(|| format!("giving `{name}` its address"))
    }

    /// Sends everything that has no better route to `gateway`.
    pub fn default_route(&mut self, gateway: [u8; 4]) -> Result<()> {
        // family, lengths, tos; table main, protocol boot, scope universe, type unicast; flags.
        let fixed = [2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        self.ask(24, CREATE | EXCLUSIVE, &Message::new(&fixed).with(5, &gateway)).context(|| "setting the default route".into())
    }

    /// Takes every address that has no better route for this machine's own (AnyIP), so that a transparent listener gets the connection.
    pub fn any_address_is_local(&mut self) -> Result<()> {
        // As above, but scope host (254) and type local (2).
        let fixed = [2, 0, 0, 0, 254, 3, 254, 2, 0, 0, 0, 0];
        let message = Message::new(&fixed).with(4, &self.index("lo")?.to_ne_bytes());
        self.ask(24, CREATE | EXCLUSIVE, &message).context(|| "taking all addresses for local".into())
    }

    fn index(&self, name: &str) -> Result<u32> {
        rustix::net::netdevice::name_to_index(&self.socket, name)
            .map_err(io::Error::from)
            .context(|| format!("looking for the interface `{name}`"))
    }

    /// Hands every TCP connection that arrives to the transparent listener on `port`, lets DNS questions through and drops all else.
    pub fn steer(&mut self, port: u16) -> Result<()> {
        const TABLE: &str = "creto";
        const CHAIN: &str = "steer";
        let ipv4 = [2, 0, 0, 0];
        let batch = [0, 0, 0, 10];
        let kind = |message: u16| (10 << 8) | message;
        let hook = Message::default().with_be(1, 0).with_be(2, (-150_i32).cast_unsigned());
        let chain = Message::new(&ipv4).with_text(1, TABLE).with_text(3, CHAIN).with_nested(4, &hook).with_be(5, 0).with_text(7, "filter");
        let rule = |expressions: &[Message]| {
            let list = expressions.iter().fold(Message::default(), |list, one| list.with_nested(1, one));
            Message::new(&ipv4).with_text(1, TABLE).with_text(2, CHAIN).with_nested(4, &list)
        };
        let accept = || expression("immediate", &Message::default().with_be(1, 0).with_nested(2, &verdict_accept()));
        let tcp = rule(&[
            load_protocol(),
            equals(&[6]),
            expression("immediate", &Message::default().with_be(1, 1).with_nested(2, &Message::default().with(1, &port.to_be_bytes()))),
            expression("tproxy", &Message::default().with_be(1, 2).with_be(3, 1)),
            accept(),
        ]);
        let dns = rule(&[load_protocol(), equals(&[17]), load_destination_port(), equals(&53_u16.to_be_bytes()), accept()]);
        let mut bytes = self.frame(0x10, 0, &batch);
        bytes.extend(self.frame(kind(0), CREATE | ACK, &Message::new(&ipv4).with_text(1, TABLE).bytes));
        bytes.extend(self.frame(kind(3), CREATE | ACK, &chain.bytes));
        bytes.extend(self.frame(kind(6), CREATE | APPEND | ACK, &tcp.bytes));
        bytes.extend(self.frame(kind(6), CREATE | APPEND | ACK, &dns.bytes));
        let last = self.sequence;
        bytes.extend(self.frame(0x11, 0, &batch));
        self.send(&bytes)
            .and_then(|()| self.acknowledged(last))
            .context(|| "installing the steering rules (needs nf_tables with tproxy)".into())
    }
}

fn expression(name: &str, data: &Message) -> Message {
    Message::default().with_text(1, name).with_nested(2, data)
}

fn load_protocol() -> Message {
    expression("meta", &Message::default().with_be(2, 16).with_be(1, 1))
}

fn load_destination_port() -> Message {
    // Base 2 is the transport header; the destination port lies at bytes 2 and 3 of it.
    expression("payload", &Message::default().with_be(1, 1).with_be(2, 2).with_be(3, 2).with_be(4, 2))
}

fn equals(value: &[u8]) -> Message {
    expression("cmp", &Message::default().with_be(1, 1).with_be(2, 0).with_nested(3, &Message::default().with(1, value)))
}

fn verdict_accept() -> Message {
    Message::default().with_nested(2, &Message::default().with_be(1, 1))
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes)
}
