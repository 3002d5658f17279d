//! Who acts for whom: signed hops, each bound to the one before it, each only narrowing what may be done.
//!
//! A hop never widens: its attenuation is a Cedar policy set, and what a chain allows is what every hop's set allows. This crate checks who
//! signed what for whom and until when; what the texts mean is policy's business.

use crate::chain::{DelegationChain, Refusal};
use crate::statement::Statement;
use crate::{AgentId, AgentIdentity, CLOCK_SKEW_SECONDS};
use creto_crypto::{Error, Provider, SigningKey, dsse};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

const DELEGATION: &str = "urn:creto:delegation:1";
/// No chain is longer.
const MAX_HOPS: usize = 16;
/// Bytes of one attenuation; policy parses it, and refuses deep nesting there.
const MAX_ATTENUATION: usize = 64 * 1024;

/// A hop that is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct HopRequest<'a> {
    /// Who delegates.
    pub delegator: &'a AgentId,
    /// Who may act for the delegator.
    pub delegatee: &'a AgentIdentity,
    /// Cedar policies that bound what the delegatee may do.
    pub attenuation: &'a str,
    /// Where the chain counts: a trust domain's name, or a service's id.
    pub audience: &'a str,
    /// Seconds since the epoch.
    pub issued_at: u64,
    /// Seconds since the epoch.
    pub expiry: u64,
    /// How many further hops may follow.
    pub depth: u32,
}

/// What a hop says of its delegatee.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Predicate<'a> {
    #[serde(borrow)]
    delegator: Cow<'a, str>,
    #[serde(borrow)]
    suite: Cow<'a, str>,
    #[serde(borrow)]
    previous: Option<Cow<'a, str>>,
    #[serde(borrow)]
    audience: Cow<'a, str>,
    #[serde(borrow)]
    attenuation: Cow<'a, str>,
    depth: u32,
    issued_at: u64,
    expiry: u64,
    #[serde(borrow)]
    nonce: Cow<'a, str>,
}

/// One signed hop, as DSSE JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop(pub String);

impl Hop {
    /// Signs a hop that follows `previous`, the chain up to the delegator, or starts one. A hop that could not verify is not signed.
    pub fn sign(request: &HopRequest<'_>, key: &SigningKey, previous: Option<&DelegationChain>) -> Result<Self, Error> {
        let refuse = |why: String| Err(Error::Malformed(format!("the delegation to `{}` cannot be made: {why}", request.delegatee.id)));
        if request.attenuation.len() > MAX_ATTENUATION {
            return refuse(format!("its attenuation has {} bytes, and {MAX_ATTENUATION} are the limit", request.attenuation.len()));
        }
        if request.expiry <= request.issued_at {
            return refuse("it would expire before it begins".into());
        }
        if request.audience.is_empty() {
            return refuse("it names no audience".into());
        }
        if let Some(chain) = previous {
            if chain.agent() != Some(request.delegator) {
                return refuse(format!("the chain so far does not end at `{}`", request.delegator));
            }
            if request.depth >= chain.depth {
                return refuse(format!(
                    "its depth is {}, and the hop before it allows at most {}",
                    request.depth,
                    i64::from(chain.depth) - 1
                ));
            }
            if request.expiry > chain.expiry {
                return refuse("it would outlive the hop before it".into());
            }
            if chain.links.contains(&request.delegatee.id) {
                return refuse("it is in the chain already".into());
            }
        } else if request.delegator == &request.delegatee.id {
            return refuse("nobody delegates to itself".into());
        }
        if request.depth as usize >= MAX_HOPS {
            return refuse(format!("its depth is {}, and chains end at {MAX_HOPS} hops", request.depth));
        }
        let nonce: [u8; 16] = Provider::chosen().nonce()?;
        let predicate = Predicate {
            delegator: request.delegator.as_str().into(),
            suite: key.suite().name().into(),
            previous: previous.map(|chain| base16ct::lower::encode_string(chain.digest()).into()),
            audience: request.audience.into(),
            attenuation: request.attenuation.into(),
            depth: request.depth,
            issued_at: request.issued_at,
            expiry: request.expiry,
            nonce: base16ct::lower::encode_string(&nonce).into(),
        };
        let payload =
            Statement::encode(DELEGATION, request.delegatee.id.as_str(), request.delegatee.verifying_key.fingerprint(), predicate)?;
        dsse::sign(key, dsse::IN_TOTO, &payload).map(Self)
    }
}

/// Every name in a chain that nobody has verified yet: only to have them at hand before it is.
pub fn unverified_names(hops: &[Hop]) -> Result<Vec<AgentId>, Refusal> {
    let mut names = Vec::new();
    for (index, hop) in hops.iter().take(MAX_HOPS).enumerate() {
        let payload = dsse::unverified_payload(&hop.0).map_err(|error| Refusal::at(index, error))?;
        let statement = Statement::<Predicate<'_>>::read(&payload, DELEGATION).map_err(|why| Refusal::at(index, why))?;
        for name in [statement.name(), &statement.predicate.delegator] {
            let id = AgentId::parse(name).map_err(|why| Refusal::at(index, why))?;
            if !names.contains(&id) {
                names.push(id);
            }
        }
    }
    Ok(names)
}

/// Knows the identities that a name has: the current one first, then those kept for verifying only, none that was revoked.
pub trait Keys: Sync {
    /// All of them.
    fn identities(&self, id: &AgentId) -> Vec<Arc<AgentIdentity>>;
}

/// What a chain is verified against.
pub struct Verification<'a> {
    /// Who is known.
    pub keys: &'a dyn Keys,
    /// Where it is to count.
    pub audience: &'a str,
    /// Seconds since the epoch.
    pub now: u64,
}

impl Verification<'_> {
    /// Verifies a chain from its first hop to its last.
    pub fn verify(&self, hops: &[Hop]) -> Result<DelegationChain, Refusal> {
        if hops.is_empty() || hops.len() > MAX_HOPS {
            return Err(Refusal(format!("a delegation chain has 1 to {MAX_HOPS} hops, and this one {}", hops.len())));
        }
        let mut chain = DelegationChain { expiry: u64::MAX, ..DelegationChain::default() };
        let mut holder: Option<Arc<AgentIdentity>> = None;
        for (index, hop) in hops.iter().enumerate() {
            holder = Some(self.extend(&mut chain, holder.as_deref(), hop).map_err(|why| Refusal::at(index, why))?);
        }
        Ok(chain)
    }

    /// Adds one hop to a chain that holds, whose last delegatee is `holder`; returns the delegatee of the hop.
    fn extend(&self, chain: &mut DelegationChain, holder: Option<&AgentIdentity>, hop: &Hop) -> Result<Arc<AgentIdentity>, String> {
        let envelope = dsse::Unverified::parse(dsse::IN_TOTO, &hop.0).map_err(|error| error.to_string())?;
        let statement = Statement::<Predicate<'_>>::read(envelope.payload(), DELEGATION)?;
        let said = &statement.predicate;
        let delegator = match holder {
            Some(holder) if holder.id.as_str() == said.delegator => holder.id.clone(),
            Some(_) => return Err(format!("`{}` did not receive the hop before it", AgentId::parse(&said.delegator)?)),
            None => AgentId::parse(&said.delegator)?,
        };
        // Whoever signed must be known by the delegator's name, and be the key that the hop before it named.
        let known = self.keys.identities(&delegator);
        let signer = known
            .iter()
            .position(|identity| {
                holder.is_none_or(|holder| holder.verifying_key == identity.verifying_key) && envelope.names(&identity.verifying_key)
            })
            .filter(|&at| known.get(at).is_some_and(|identity| envelope.verify(&identity.verifying_key).is_ok()));
        let Some((at, signer)) = signer.and_then(|at| known.get(at).map(|identity| (at, identity))) else {
            return Err(format!("no key of `{delegator}` that may sign it has signed it"));
        };
        if said.previous.as_deref() != holder.map(|_| base16ct::lower::encode_string(chain.digest())).as_deref() {
            return Err("it was not made to follow the hop before it".into());
        }
        if said.suite != signer.suite().name() {
            return Err("it is a statement of another suite".into());
        }
        if said.audience != self.audience {
            return Err(format!("it was made for `{}`, not for `{}`", said.audience, self.audience));
        }
        let superseded = at.checked_sub(1).and_then(|newer| known.get(newer));
        if said.issued_at > self.now.saturating_add(CLOCK_SKEW_SECONDS)
            || self.now >= said.expiry
            || !signer.may_sign_at(said.issued_at, superseded.map(|newer| &**newer))
        {
            return Err("it is not valid at this time".into());
        }
        if holder.is_some() && (said.expiry > chain.expiry || said.depth >= chain.depth) {
            return Err("it reaches further than the hop before it".into());
        }
        if said.attenuation.len() > MAX_ATTENUATION || said.depth as usize >= MAX_HOPS {
            return Err("its attenuation or depth is beyond the limit".into());
        }
        let delegatee = AgentId::parse(statement.name())?;
        if holder.is_none() {
            chain.links.push(delegator.clone());
        }
        if chain.links.contains(&delegatee) {
            return Err(format!("`{delegatee}` is in the chain already"));
        }
        let named = self.keys.identities(&delegatee);
        let Some(named) = named.into_iter().find(|identity| identity.verifying_key.fingerprint() == statement.fingerprint()) else {
            return Err(format!("it names a key that `{delegatee}` does not have, or no longer"));
        };
        chain.links.push(delegatee);
        chain.attenuations.push((delegator, said.attenuation.to_string()));
        chain.digest = Provider::chosen().sha256(&[envelope.payload()]);
        chain.expiry = chain.expiry.min(said.expiry);
        chain.depth = said.depth;
        Ok(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, ChainCache};
    use creto_crypto::{KemKey, Suite};
    use std::collections::HashMap;

    const NOW: u64 = 1_790_000_000;

    struct World {
        keys: HashMap<AgentId, SigningKey>,
        identities: HashMap<AgentId, AgentIdentity>,
    }

    impl Keys for World {
        fn identities(&self, id: &AgentId) -> Vec<Arc<AgentIdentity>> {
            self.identities.get(id).cloned().map(Arc::new).into_iter().collect()
        }
    }

    impl World {
        fn new(names: &[&str]) -> Self {
            let authority = Authority::generate("creto.test", Suite::Standard, NOW, 100_000).unwrap();
            let mut world = Self { keys: HashMap::new(), identities: HashMap::new() };
            for name in names {
                let id = AgentId::agent("creto.test", name).unwrap();
                let key = SigningKey::generate(Suite::Standard).unwrap();
                let kem = KemKey::generate(Suite::Standard.kem()).unwrap();
                let statement = authority.issue(&id, key.verifying_key(), kem.public_key(), NOW, 50_000).unwrap();
                world.identities.insert(id.clone(), authority.domain().admit(&statement).unwrap());
                world.keys.insert(id, key);
            }
            world
        }

        fn id(&self, name: &str) -> AgentId {
            AgentId::agent("creto.test", name).unwrap()
        }

        fn hop(
            &self,
            from: &str,
            to: &str,
            previous: Option<&DelegationChain>,
            change: impl FnOnce(&mut HopRequest<'_>),
        ) -> Result<Hop, Error> {
            let (delegator, delegatee) = (self.id(from), self.id(to));
            let mut request = HopRequest {
                delegator: &delegator,
                delegatee: &self.identities[&delegatee],
                attenuation: "permit(principal, action, resource);",
                audience: "creto.test",
                issued_at: NOW,
                expiry: previous.map_or(NOW + 100, |chain| chain.expiry()),
                depth: previous.map_or(3, |chain| chain.depth().saturating_sub(1)),
            };
            change(&mut request);
            Hop::sign(&request, &self.keys[&delegator], previous)
        }

        fn verify(&self, hops: &[Hop]) -> Result<DelegationChain, Refusal> {
            Verification { keys: self, audience: "creto.test", now: NOW + 1 }.verify(hops)
        }
    }

    fn three(world: &World) -> Vec<Hop> {
        let mut hops = Vec::new();
        let mut chain = None;
        for (from, to) in [("a", "b"), ("b", "c"), ("c", "d")] {
            hops.push(world.hop(from, to, chain.as_ref(), |_| ()).unwrap());
            chain = Some(world.verify(&hops).unwrap());
        }
        hops
    }

    #[test]
    fn a_chain_of_three_hops_holds_and_names_who_acts_for_whom() {
        let world = World::new(&["a", "b", "c", "d"]);
        let chain = world.verify(&three(&world)).unwrap();
        assert_eq!(chain.links, ["a", "b", "c", "d"].map(|name| world.id(name)));
        assert_eq!(chain.attenuations().len(), 3);
        assert_eq!((chain.depth(), chain.expiry()), (1, NOW + 100));
    }

    #[test]
    fn every_splice_reorder_and_cut_from_the_front_is_refused() {
        let world = World::new(&["a", "b", "c", "d"]);
        let (one, other) = (three(&world), three(&world));
        for (bad, why) in [
            (vec![one[1].clone()], "cut from the front"),
            (vec![one[1].clone(), one[0].clone()], "reordered"),
            (vec![one[0].clone(), other[1].clone()], "spliced onto another chain of the same names"),
            (vec![one[0].clone(), one[2].clone()], "a hop left out"),
            (vec![one[0].clone(), one[0].clone()], "a hop twice"),
            (vec![], "empty"),
        ] {
            assert!(world.verify(&bad).is_err(), "{why}");
        }
        // A prefix is a chain of its own: it gives the earlier delegatee what it had been given.
        assert!(world.verify(&one[..2]).is_ok());
    }

    #[test]
    fn another_audience_another_time_and_a_revoked_key_are_refused() {
        let mut world = World::new(&["a", "b", "c", "d"]);
        let hops = three(&world);
        let at = |world: &World, audience: &str, now: u64| Verification { keys: world, audience, now }.verify(&hops).map(|_| ());
        assert!(at(&world, "creto.test", NOW + 99).is_ok());
        assert!(at(&world, "creto.test", NOW + 100).is_err(), "expired");
        assert!(at(&world, "creto.test", NOW - 61).is_err(), "from the future");
        assert!(at(&world, "elsewhere.test", NOW).is_err());
        world.identities.remove(&world.id("c"));
        assert!(at(&world, "creto.test", NOW).unwrap_err().to_string().contains("hop 2"));
    }

    #[test]
    fn a_hop_that_widens_is_neither_signed_nor_believed_when_forged_by_its_own_signer() {
        let world = World::new(&["a", "b", "c"]);
        let first = world.hop("a", "b", None, |_| ()).unwrap();
        let chain = world.verify(std::slice::from_ref(&first)).unwrap();
        assert!(world.hop("b", "c", Some(&chain), |r| r.expiry += 1).is_err());
        assert!(world.hop("b", "c", Some(&chain), |r| r.depth = 3).is_err());
        let (a, c) = (world.id("a"), world.id("c"));
        assert!(world.hop("b", "a", Some(&chain), |_| ()).is_err(), "a cycle");
        assert!(Hop::sign(&HopRequest { delegator: &a, ..request(&world, &a, &c) }, &world.keys[&a], Some(&chain)).is_err());
        // Now b leaves our code aside and signs what our code would not.
        for (field, value) in [("expiry", serde_json::json!(NOW + 101)), ("depth", serde_json::json!(3)), ("depth", serde_json::json!(99))]
        {
            let honest = world.hop("b", "c", Some(&chain), |_| ()).unwrap();
            let mut statement: serde_json::Value = serde_json::from_slice(&dsse::unverified_payload(&honest.0).unwrap()).unwrap();
            statement["predicate"][field] = value;
            let forged = dsse::sign(&world.keys[&world.id("b")], dsse::IN_TOTO, statement.to_string().as_bytes()).unwrap();
            let refusal = world.verify(&[first.clone(), Hop(forged)]).unwrap_err();
            assert!(refusal.to_string().contains("reaches further") || refusal.to_string().contains("beyond the limit"), "{refusal}");
        }
    }

    fn request<'a>(world: &'a World, from: &'a AgentId, to: &AgentId) -> HopRequest<'a> {
        HopRequest {
            delegator: from,
            delegatee: &world.identities[to],
            attenuation: "",
            audience: "creto.test",
            issued_at: NOW,
            expiry: NOW + 1,
            depth: 0,
        }
    }

    #[test]
    fn a_cached_chain_lasts_for_its_epoch_only() {
        let mut world = World::new(&["a", "b"]);
        let hops = vec![world.hop("a", "b", None, |_| ()).unwrap()];
        let cache = ChainCache::default();
        let verify = |world: &World, epoch: u64, now: u64| {
            cache.verify(&hops, &Verification { keys: world, audience: "creto.test", now }, epoch).map(|_| ())
        };
        verify(&world, 1, NOW).unwrap();
        world.identities.clear();
        verify(&world, 1, NOW).unwrap();
        assert!(verify(&world, 1, NOW + 100).is_err(), "it expired in the cache");
        assert!(verify(&world, 2, NOW).is_err(), "a revocation moved the epoch");
    }
}
