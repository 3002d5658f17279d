//! Names and the fake addresses that stand for them inside one sandbox; nothing is ever asked of a real name server here.

use std::collections::HashMap;
use std::net::Ipv4Addr;

/// RFC 2544's benchmarking range: never routed on the Internet, so a leak goes nowhere.
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 16]);
/// More names than this in one sandbox is a tunnel, not a program.
const MOST: usize = 4096;

/// A host name as it is compared and asked about: lower case, no trailing dot, letters, digits, `-`, `_` and dots.
pub fn normal(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let fits = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    (name.len() <= 253 && name.split('.').all(fits) && name.parse::<Ipv4Addr>().is_err()).then(|| name.to_ascii_lowercase())
}

/// Both directions of the map.
#[derive(Default)]
pub struct Names {
    by_name: HashMap<String, Ipv4Addr>,
    by_address: HashMap<Ipv4Addr, String>,
}

impl Names {
    /// The address that stands for a name; none when the sandbox has used up its share.
    pub fn address(&mut self, name: &str) -> Option<Ipv4Addr> {
        if let Some(known) = self.by_name.get(name) {
            return Some(*known);
        }
        if self.by_name.len() >= MOST {
            return None;
        }
        let offset = u32::try_from(self.by_name.len()).ok()?;
        let address = Ipv4Addr::from(FIRST + offset);
        self.by_name.insert(name.to_owned(), address);
        self.by_address.insert(address, name.to_owned());
        Some(address)
    }

    /// The name that an address stands for.
    pub fn name(&self, address: Ipv4Addr) -> Option<&str> {
        self.by_address.get(&address).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_address_and_the_address_leads_back() {
        let mut names = Names::default();
        let first = names.address("example.org").unwrap();
        assert_eq!(names.address("example.org"), Some(first));
        assert_ne!(names.address("example.com"), Some(first));
        assert_eq!(names.name(first), Some("example.org"));
        assert_eq!(names.name(Ipv4Addr::new(8, 8, 8, 8)), None);
    }

    #[test]
    fn a_tunnel_runs_out_of_names() {
        let mut names = Names::default();
        assert!((0..MOST).all(|n| names.address(&format!("{n}.example.org")).is_some()));
        assert_eq!(names.address("one-more.example.org"), None);
    }

    #[test]
    fn only_host_names_are_names() {
        assert_eq!(normal("Example.ORG.").as_deref(), Some("example.org"));
        for bad in ["", ".", "a..b", "10.0.0.1", "a b", "ex\u{e4}mple", "[::1]", &"x".repeat(64)] {
            assert_eq!(normal(bad), None, "{bad}");
        }
    }
}
