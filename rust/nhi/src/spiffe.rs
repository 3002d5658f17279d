//! Names: SPIFFE ids, as the SPIFFE standard spells them.

use std::fmt;
use std::sync::Arc;

/// A SPIFFE id of the form `spiffe://<trust-domain>/agent/<name>`; cheap to clone.
///
/// Approvers, services and people who delegate have ids of the same form with another first part of the path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(Arc<str>);

impl AgentId {
    /// Parses a SPIFFE id; the text says what is wrong with a bad one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("`{text}` is not an agent id: {why}; write `spiffe://<trust-domain>/agent/<name>`"));
        let Some(rest) = text.strip_prefix("spiffe://") else {
            return refuse("it does not start with `spiffe://`");
        };
        let Some((domain, path)) = rest.split_once('/') else {
            return refuse("it has no path");
        };
        if !is_trust_domain(domain) {
            return refuse("the trust domain may hold lower-case letters, digits, `.`, `-` and `_` only");
        }
        let segment_ok = |s: &str| {
            !s.is_empty() && s != "." && s != ".." && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if text.len() > 2048 || !path.split('/').all(segment_ok) {
            return refuse("each part of the path may hold letters, digits, `.`, `-` and `_` only");
        }
        Ok(Self(text.into()))
    }

    /// The id of an agent of a trust domain, by its name.
    pub fn agent(domain: &str, name: &str) -> Result<Self, String> {
        Self::parse(&format!("spiffe://{domain}/agent/{name}"))
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        self.0.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).map_or("", |(domain, _)| domain)
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(_, name)| name)
    }
}

/// Whether a text can name a trust domain.
pub fn is_trust_domain(domain: &str) -> bool {
    !domain.is_empty()
        && domain.len() <= 255
        && domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}
