//! Keys that are always the same, so that what was sealed or signed for a seed still opens: of use for nothing else.

use creto_crypto::{KemKey, Provider, Secret, SigningKey, Suite};
use creto_enablement_common::AgentId;
use creto_messaging::Acceptance;
use creto_nhi::{Authority, Directory};
use std::sync::{Arc, LazyLock};

/// When everything happens.
pub const NOW: u64 = 1_790_000_000;
pub const DOMAIN: &str = "creto.test";

pub struct Agent {
    pub id: AgentId,
    pub signing: SigningKey,
    pub kem: KemKey,
}

pub struct World {
    pub directory: Directory,
    pub agents: Vec<Agent>,
}

pub static WORLD: LazyLock<World> = LazyLock::new(|| make().expect("fixed seeds make keys"));

fn signing(number: u8) -> Result<SigningKey, creto_crypto::Error> {
    let seeds = [number, number + 100].map(|byte| Secret::copy_from(&[byte; 32]));
    SigningKey::from_seeds(Provider::chosen(), Suite::Standard, seeds.into_iter().collect::<Result<_, _>>()?)
}

fn make() -> Result<World, Box<dyn std::error::Error>> {
    let authority = Authority::certify(DOMAIN, signing(99)?, NOW - 1000, 1_000_000)?;
    let directory = Directory::default();
    let agents = (1_u8..=3)
        .map(|number| {
            let id = AgentId::agent(DOMAIN, &format!("a{number}"))?;
            let signing = signing(number)?;
            let kem = KemKey::from_seed(Provider::chosen(), Suite::Standard.kem(), Secret::copy_from(&[number; 64])?)?;
            let statement = authority.issue(&id, signing.verifying_key(), kem.public_key(), NOW - 500, 500_000)?;
            directory.add(Arc::new(authority.domain().admit(&statement)?));
            Ok(Agent { id, signing, kem })
        })
        .collect::<Result<Vec<_>, Box<dyn std::error::Error>>>()?;
    Ok(World { directory, agents })
}

impl World {
    pub fn agent(&self, number: usize) -> &Agent {
        self.agents.get(number).expect("there are three agents")
    }

    /// What the last agent demands of a message.
    pub fn acceptance(&self) -> Acceptance<'_> {
        Acceptance {
            me: &self.agent(2).id,
            directory: &self.directory,
            suite: Suite::Standard,
            max_bytes: 1 << 20,
            max_life: 300,
            now: NOW + 1,
        }
    }
}
