//! Delegation chains held against a model that signs nothing.

use crate::{AgentId, AgentIdentity, Authority, DelegationChain, Directory, Hop, HopRequest, Verification};
use creto_crypto::{KemKey, SigningKey, Suite};
use proptest::prelude::*;
use std::sync::{Arc, OnceLock};

const NOW: u64 = 1_790_000_000;
const AGENTS: usize = 5;

struct World {
    directory: Directory,
    agents: Vec<(AgentId, SigningKey, Arc<AgentIdentity>)>,
}

fn world() -> &'static World {
    static MADE: OnceLock<World> = OnceLock::new();
    MADE.get_or_init(|| {
        let authority = Authority::generate("creto.test", Suite::Standard, NOW, 100_000).unwrap();
        let directory = Directory::default();
        let agents = (0..AGENTS)
            .map(|number| {
                let id = AgentId::agent("creto.test", &format!("a{number}")).unwrap();
                let key = SigningKey::generate(Suite::Standard).unwrap();
                let kem = KemKey::generate(Suite::Standard.kem()).unwrap();
                let statement = authority.issue(&id, key.verifying_key(), kem.public_key(), NOW, 50_000).unwrap();
                let identity = Arc::new(authority.domain().admit(&statement).unwrap());
                directory.add(Arc::clone(&identity));
                (id, key, identity)
            })
            .collect();
        World { directory, agents }
    })
}

/// What a chain is, with nothing signed: the rules that a hop has to keep, said once more and apart from the code above.
#[derive(Default)]
struct Model {
    links: Vec<usize>,
    depth: u32,
    expiry: u64,
}

impl Model {
    fn allows(&self, from: usize, to: usize, depth: u32, life: u64) -> bool {
        let first = self.links.is_empty();
        let ends_at_from = first || self.links.last() == Some(&from);
        let new = if first { from != to } else { !self.links.contains(&to) };
        let narrower = first || (depth < self.depth && life <= self.expiry);
        ends_at_from && new && narrower && life > 0 && depth < 16
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chains_grow_exactly_as_the_model_says_and_verify_to_what_it_holds(
        steps in prop::collection::vec((0..AGENTS, 0..AGENTS, 0u32..18, 0u64..100), 1..8)
    ) {
        let world = world();
        let verification = Verification { keys: &world.directory, audience: "creto.test", now: NOW };
        let (mut model, mut hops, mut chain) = (Model::default(), Vec::new(), None::<DelegationChain>);
        for (from, to, depth, life) in steps {
            let (delegator, key, _) = &world.agents[from];
            let request = HopRequest {
                delegator,
                delegatee: &world.agents[to].2,
                attenuation: "permit(principal, action, resource);",
                audience: "creto.test",
                issued_at: NOW,
                expiry: NOW + life,
                depth,
            };
            let signed = Hop::sign(&request, key, chain.as_ref());
            prop_assert_eq!(signed.is_ok(), model.allows(from, to, depth, life));
            let Ok(hop) = signed else { continue };
            hops.push(hop);
            if model.links.is_empty() {
                model.links.push(from);
            }
            model.links.push(to);
            (model.depth, model.expiry) = (depth, life);
            let verified = verification.verify(&hops).unwrap();
            let links: Vec<&AgentId> = model.links.iter().map(|&n| &world.agents[n].0).collect();
            prop_assert_eq!(verified.links.iter().collect::<Vec<_>>(), links);
            prop_assert_eq!((verified.depth(), verified.expiry()), (model.depth, NOW + model.expiry));
            // No other order, and no hop less or more, is this chain.
            let mut other = hops.clone();
            other.reverse();
            prop_assert_eq!(verification.verify(&other).is_ok(), hops.len() == 1);
            let doubled = [hops.as_slice(), &hops[hops.len() - 1..]].concat();
            prop_assert!(verification.verify(&doubled).is_err());
            chain = Some(verified);
        }
    }
}
