//! Who acts, for whom, and against whose quota: prepared once, used for many acts.

use creto_authz::{Actor, Attenuation};
use creto_enablement_common::{Error, Result};
use std::sync::Arc;

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

/// An acting agent with its quota path and its chain.
#[derive(Clone, Debug)]
pub struct Principal {
    agent: Arc<str>,
    actor: Actor,
    path: Vec<Arc<str>>,
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
    pub fn new(agent: &str, actor: Actor, path: &[&str], chain: Vec<Link>) -> Result<Self> {
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
        Ok(Self { agent: agent.into(), actor, path_text, path: path.iter().map(|&node| node.into()).collect(), chain, sandbox: None })
    }

    /// The same agent, acting from a sandbox of this name; its records name it.
    #[must_use]
    pub fn inside(mut self, sandbox: &str) -> Self {
        self.sandbox = Some(sandbox.into());
        self
    }

    /// What every record of its acts tells beside the act: its quota path as a JSON list, and the sandbox.
    pub(crate) fn details(&self) -> impl Iterator<Item = (&str, &str)> {
        [("path", &*self.path_text)].into_iter().chain(self.sandbox.as_deref().map(|sandbox| ("sandbox", sandbox)))
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
