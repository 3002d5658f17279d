//! The only way out of a sandbox: a proxy that owns the listeners of its gateway namespace, and asks before it connects.
//!
//! It breaks no TLS open, keeps no content, and follows no redirect; it sees names, ports, byte counts and plain HTTP request lines.

mod desk;
pub mod dns;
pub mod http;
mod names;
mod proxy;
pub mod tls;

pub use desk::{Desk, Destination, Event, Request, Verdict};
pub use names::{Names, normal};
pub use proxy::{Egress, Upstreams};
