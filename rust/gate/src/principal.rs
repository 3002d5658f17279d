//! Who acts, for whom, and against whose quota: prepared once, used for many acts.

use crate::enter::Parts;
use creto_authz::{Actor, Attenuation};
use creto_enablement_common::ports::QuotaPath;
use creto_enablement_common::{Error, Result};
use smallvec::SmallVec;
use std::sync::{Arc, OnceLock};

/// One link of a delegation chain.
#[derive(Clone, Debug)]
pub struct Link {
    /// The link's id; policy is asked about it as about the agent itself.
    pub id: Arc<str>,
    /// The same, looked up.
    pub actor: Actor,
    /// What the hop to this link was narrowed to, in Cedar; the act has to be permitted by it too.
    pub attenuation: Option<Arc<Attenuation>>,
}

/// An acting agent with its quota path and its chain. It belongs to the gate that prepared it.
#[derive(Clone)]
pub struct Principal {
    pub(crate) parts: Arc<Parts>,
    agent: Arc<str>,
    actor: Actor,
    path: Vec<Arc<str>>,
    /// The path as metering knows it; looked up when an act first uses something.
    quota: OnceLock<Arc<dyn QuotaPath>>,
    /// The same as a JSON list, for records: usage is billed and quota rebuilt by it.
    path_text: Box<str>,
    chain: Vec<Link>,
    sandbox: Option<Box<str>>,
}

impl Principal {
    /// The most links a chain may have.
    pub const MOST_LINKS: usize = 16;

    /// Prepares a principal. `actor` is the agent looked up; `path` is the quota path, the organisation first; `chain` the links before the agent, the first delegator first,
    /// and the agent itself last where its own hop is narrowed.
    ///
    /// # Errors
    /// `InvalidInput` where the agent has no id or the chain is too long.
    pub(crate) fn new(parts: Arc<Parts>, agent: &str, actor: Actor, path: &[&str], chain: Vec<Link>) -> Result<Self> {
        if agent.is_empty() {
            return Err(Error::invalid("the agent has no id"));
        }
        if chain.len() > Self::MOST_LINKS {
            return Err(Error::invalid(format!(
                "the delegation chain has {} links, and at most {} are followed",
                chain.len(),
                Self::MOST_LINKS
            )));
        }
        let path_text = serde_json::Value::from(path.to_vec()).to_string().into();
        let path = path.iter().map(|&node| node.into()).collect();
        Ok(Self { parts, agent: agent.into(), actor, path, quota: OnceLock::new(), path_text, chain, sandbox: None })
    }

    /// The same agent, acting from a sandbox of this name; its records name it.
    #[must_use]
    pub fn inside(mut self, sandbox: &str) -> Self {
        self.sandbox = Some(sandbox.into());
        self
    }

    /// What every record of its acts tells beside the act: its quota path as a JSON list, and the sandbox.
    pub(crate) fn details(&self) -> SmallVec<[(&str, &str); 4]> {
        let mut details = SmallVec::new();
        details.push(("path", &*self.path_text));
        if let Some(sandbox) = &self.sandbox {
            details.push(("sandbox", &**sandbox));
        }
        details
    }

    /// The ids of the chain, as records name them.
    pub(crate) fn links(&self) -> SmallVec<[&str; 4]> {
        self.chain.iter().map(|link| &*link.id).collect()
    }

    /// The names of the quota path.
    pub(crate) fn nodes(&self) -> SmallVec<[&str; 8]> {
        self.path.iter().map(|node| &**node).collect()
    }

    /// The quota path as metering knows it.
    ///
    /// # Errors
    /// Metering's, for a path that cannot be.
    #[inline]
    pub(crate) fn quota(&self) -> Result<&dyn QuotaPath> {
        if let Some(known) = self.quota.get() {
            return Ok(&**known);
        }
        let found = self.parts.quota.path(&self.nodes())?;
        Ok(&**self.quota.get_or_init(|| found))
    }

    /// The acting agent's id.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// The acting agent, looked up.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The quota path, the organisation first.
    pub fn path(&self) -> &[Arc<str>] {
        &self.path
    }

    /// The links of the chain, the first delegator first.
    pub fn chain(&self) -> &[Link] {
        &self.chain
    }
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Principal")
            .field("agent", &self.agent)
            .field("path", &self.path)
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}
