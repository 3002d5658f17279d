//! What the tests of the envelope share: a trust domain with a few agents.

use crate::{Acceptance, Outgoing, Priority, seal, verify};
use creto_crypto::{KemKey, KemPublicKey, SigningKey, Suite};
use creto_enablement_common::{AgentId, Result};
use creto_nhi::{Authority, Directory};
use std::sync::Arc;

pub const NOW: u64 = 1_790_000_000;

pub struct Agent {
    pub id: AgentId,
    pub signing: SigningKey,
    pub kem: KemKey,
}

pub struct World {
    pub suite: Suite,
    pub directory: Directory,
    pub agents: Vec<Agent>,
}

impl World {
    /// Agents `a0`, `a1`, ... who know each other.
    pub fn new(suite: Suite, agents: usize) -> Self {
        let authority = Authority::generate("creto.test", suite, NOW, 1_000_000).unwrap();
        let directory = Directory::default();
        let agents = (0..agents)
            .map(|number| {
                let id = AgentId::agent("creto.test", &format!("a{number}")).unwrap();
                let signing = SigningKey::generate(suite).unwrap();
                let kem = KemKey::generate(suite.kem()).unwrap();
                let statement = authority.issue(&id, signing.verifying_key(), kem.public_key(), NOW, 500_000).unwrap();
                directory.add(Arc::new(authority.domain().admit(&statement).unwrap()));
                Agent { id, signing, kem }
            })
            .collect();
        Self { suite, directory, agents }
    }

    pub fn to(&self, numbers: &[usize]) -> Vec<(AgentId, KemPublicKey)> {
        numbers.iter().map(|&n| (self.agents[n].id.clone(), self.agents[n].kem.public_key().clone())).collect()
    }

    pub fn seal_as(&self, from: usize, signer: usize, to: &[usize], body: &[u8]) -> Vec<u8> {
        let message = Outgoing {
            from: &self.agents[from].id,
            to: &self.to(to),
            message_id: [7; 16],
            date: NOW,
            expires: NOW + 60,
            content_type: "text/plain",
            in_reply_to: None,
            priority: Priority::Normal,
            chain: None,
            body,
        };
        seal(&message, &self.agents[signer].signing).unwrap()
    }

    pub fn seal(&self, from: usize, to: &[usize], body: &[u8]) -> Vec<u8> {
        self.seal_as(from, from, to, body)
    }

    pub fn acceptance(&self, me: usize) -> Acceptance<'_> {
        Acceptance {
            me: &self.agents[me].id,
            directory: &self.directory,
            suite: self.suite,
            max_bytes: 1 << 22,
            max_life: 300,
            now: NOW + 1,
        }
    }

    pub fn open(&self, me: usize, envelope: &[u8]) -> Result<Vec<u8>> {
        verify(envelope, &self.acceptance(me))?.open(envelope, &[self.agents[me].kem.clone()])
    }
}
