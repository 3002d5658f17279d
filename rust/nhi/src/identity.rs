//! The agent's name, its identity and the chain of those it acts for.

use std::fmt;
use std::sync::Arc;

/// A SPIFFE id of the form `spiffe://<trust-domain>/agent/<name>`; cheap to clone.
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
        let domain_ok = !domain.is_empty()
            && domain.len() <= 255
            && domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'));
        if !domain_ok {
            return refuse("the trust domain may hold lower-case letters, digits, `.`, `-` and `_` only");
        }
        let segment_ok =
            |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if text.len() > 2048 || !path.split('/').all(segment_ok) {
            return refuse("each part of the path may hold letters, digits, `.`, `-` and `_` only");
        }
        Ok(Self(text.into()))
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
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

/// A non-human identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// Its name.
    pub id: AgentId,
}

/// Who acts for whom: from the first delegator to the agent, each hop narrower than the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DelegationChain {
    /// Names along the chain, the delegator first, the acting agent last.
    pub links: Vec<AgentId>,
}
