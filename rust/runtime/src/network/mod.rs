//! The way out of a sandbox, or rather its absence: two network namespaces joined by one virtual wire.
//!
//! The inner one is the sandbox's; the outer one, the gateway, has no network card and forwards nothing. Every address is local there, so a
//! connection to anywhere ends at the proxy's listener. Both live only as long as a descriptor or a process holds them: nothing to clean up.

mod netlink;

use crate::sys::{transparent, unshare};
use creto_enablement_common::{Error, ErrorKind, Result, ResultExt};
use netlink::Netlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

/// The sandbox's own address on the wire.
pub const INSIDE: [u8; 4] = [10, 111, 0, 2];
/// The gateway's address: default route and name server of the sandbox.
pub const GATEWAY: [u8; 4] = [10, 111, 0, 1];
const WIRE: &str = "eth0";
const PROXY_PORT: u16 = 5501;

/// The topology of one sandbox, and the listeners in its gateway.
pub struct Wire {
    /// The sandbox's network namespace, for the backend to start it in.
    pub inside: OwnedFd,
    /// Gets every TCP connection; its local address is where the program wanted to go.
    pub connections: TcpListener,
    /// Gets every DNS question.
    pub questions: UdpSocket,
}

impl Wire {
    /// Makes both namespaces and the listeners. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN.
    pub fn new() -> Result<Self> {
        // A thread of its own, since a thread that has changed its namespace is of no use for anything else.
        std::thread::Builder::new()
            .name("creto-wire".into())
            .spawn(Self::build)
            .map_err(Error::from)?
            .join()
            .map_err(|_| Error::internal("the thread that makes network namespaces died"))?
            .map_err(|e| Error::new(ErrorKind::SandboxSpawnFailed).with_context("making the sandbox's network").with_source(e))
    }

    fn build() -> Result<Self> {
        unshare(UnshareFlags::NEWNET).context(|| "making the gateway's namespace".into())?;
        let gateway = here()?;
        unshare(UnshareFlags::NEWNET).context(|| "making the sandbox's namespace".into())?;
        let inside = here()?;
        let mut net = Netlink::route()?;
        refuse_ipv6()?;
        net.veth(WIRE, &gateway)?;
        net.address(WIRE, INSIDE, 30)?;
        net.up("lo")?;
        net.up(WIRE)?;
        net.default_route(GATEWAY)?;
        move_into_link_name_space(gateway.as_fd(), Some(LinkNameSpaceType::Network)).map_err(io::Error::from)?;
        let mut net = Netlink::route()?;
        refuse_ipv6()?;
        net.up("lo")?;
        net.address(WIRE, GATEWAY, 30)?;
        net.up(WIRE)?;
        net.any_address_is_local()?;
        Netlink::netfilter()?.steer(PROXY_PORT)?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")?;
        let connections = transparent_listener()?;
        let questions = UdpSocket::bind((Ipv4Addr::from(GATEWAY), 53)).map_err(Error::from).context(|| "binding the name server".into())?;
        Ok(Self { inside, connections, questions })
    }
}

/// Gives the loopback of the calling thread's namespace an address.
#[cfg(test)]
pub fn bring_up(address: Ipv4Addr) -> Result<()> {
    let mut net = Netlink::route()?;
    net.up("lo")?;
    net.address("lo", address.octets(), 32)
}

fn here() -> Result<OwnedFd> {
    std::fs::File::open("/proc/thread-self/ns/net").map(OwnedFd::from).map_err(Error::from).context(|| "opening a network namespace".into())
}

/// A new namespace has its own switch for IPv6; where the kernel has no IPv6 there is nothing to refuse.
fn refuse_ipv6() -> Result<()> {
    for which in ["all", "default"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1").or_else(ignore_missing)?;
    }
    Ok(())
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn transparent_listener() -> Result<TcpListener> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(io::Error::from)?;
    sockopt::set_socket_reuseaddr(&socket, true).map_err(io::Error::from)?;
    transparent(&socket)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PROXY_PORT)).map_err(io::Error::from)?;
    listen(&socket, 128).map_err(io::Error::from)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    fn inside<T: Send + 'static>(wire: &Wire, act: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = wire.inside.try_clone().unwrap();
        std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn every_connection_from_inside_ends_at_the_listener_and_tells_where_it_wanted_to_go() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root here");
            return;
        }
        let wire = Wire::new().unwrap();
        for wanted in ["198.18.0.7:80", "8.8.8.8:443", "169.254.169.254:80", "10.111.0.1:22"] {
            let target: SocketAddr = wanted.parse().unwrap();
            let mut client = inside(&wire, move || TcpStream::connect_timeout(&target, Duration::from_secs(2)).unwrap());
            let (server, _) = wire.connections.accept().unwrap();
            assert_eq!(server.local_addr().unwrap(), target);
            drop(server);
            assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
        }
    }

    #[test]
    fn datagrams_reach_nothing_but_the_name_server() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root here");
            return;
        }
        let wire = Wire::new().unwrap();
        wire.questions.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        inside(&wire, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"tunnel", "8.8.8.8:53").unwrap();
            socket.send_to(b"tunnel", "10.111.0.1:123").unwrap();
        });
        assert!(wire.questions.recv(&mut [0; 16]).is_err());
        wire.questions.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        inside(&wire, || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"question", (Ipv4Addr::from(GATEWAY), 53)).unwrap());
        assert_eq!(wire.questions.recv(&mut [0; 16]).unwrap(), 8);
    }
}
