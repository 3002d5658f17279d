//! The act as it is agreed to, and its digest: SHA-256 (suite `cnsa2`: SHA-384) over RFC 8785 JSON.

use crate::encode::{Encoded, canonical};
use core::fmt;
use creto_crypto::{Hash, Suite};
use creto_enablement_common::{Error, Result};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256, Sha384};

/// An act's document may not be larger: a human has to be able to look at it.
const LARGEST: usize = 1 << 20;

/// Who does what, for whom, to which resource, in which circumstances, at which cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Act {
    agent: String,
    chain: String,
    action: String,
    resource: String,
    context: Json,
    usage: Json,
}

/// What a request adds to the act: which policy asks, what makes it unlike every other request, and how long a grant is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms<'a> {
    /// The policy that asks.
    pub policy: &'a str,
    /// 16 random bytes.
    pub nonce: &'a [u8; 16],
    /// Microseconds since the Unix epoch; no grant is good after it.
    pub expiry: u64,
}

/// The digest of an act under given terms.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActDigest {
    /// Suite `standard`.
    Sha256([u8; 32]),
    /// Suite `cnsa2`.
    Sha384([u8; 48]),
}

impl ActDigest {
    fn over(bytes: &[u8], suite: Suite) -> Self {
        match suite.acts() {
            Hash::Sha384 => Self::Sha384(Sha384::digest(bytes).into()),
            _ => Self::Sha256(Sha256::digest(bytes).into()),
        }
    }

    /// The name that in-toto gives to the algorithm.
    pub const fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha384(_) => "sha384",
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha384(bytes) => bytes,
        }
    }
}

impl fmt::Display for ActDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base16ct::lower::encode_string(self.bytes()))
    }
}

impl fmt::Debug for ActDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.algorithm())
    }
}

impl Act {
    /// An act. `chain` is the digest of the delegation chain (`Act::chain_of` where there are only names).
    ///
    /// # Errors
    /// `InvalidInput` where a part is empty, the context is not a record, a meter stands twice, or the whole is too large.
    pub fn new(agent: &str, chain: &[u8], action: &str, resource: &str, context: Encoded, usage: &[(String, u64)]) -> Result<Self> {
        for (name, value) in [("agent", agent), ("action", action), ("resource", resource)] {
            if value.is_empty() {
                return Err(Error::invalid(format!("an act needs its {name}")));
            }
        }
        if !matches!(chain.len(), 32 | 48) {
            return Err(Error::invalid("the chain's digest has 32 or 48 bytes"));
        }
        let context = context.bounded()?.into_json();
        if !context.is_object() {
            return Err(Error::invalid("the context of an act is a record: names and values"));
        }
        let mut meters = Map::new();
        for (meter, quantity) in usage {
            let quantity = Encoded::integer(&quantity.to_string())?.into_json();
            if meters.insert(meter.clone(), quantity).is_some() {
                return Err(Error::invalid(format!("the meter `{meter}` stands twice")));
            }
        }
        let act = Self {
            agent: agent.to_owned(),
            chain: base16ct::lower::encode_string(chain),
            action: action.to_owned(),
            resource: resource.to_owned(),
            context,
            usage: Json::Object(meters),
        };
        let size = canonical(&act.core_json())?.len();
        if size > LARGEST {
            return Err(Error::invalid(format!("the act's document has {size} bytes; at most {LARGEST} can be asked about")));
        }
        Ok(act)
    }

    /// The digest of a chain of names, for chains whose hops are not signed statements.
    ///
    /// # Errors
    /// `Internal` where JSON cannot be written.
    pub fn chain_of(names: &[&str], suite: Suite) -> Result<Vec<u8>> {
        Ok(ActDigest::over(&canonical(&json!(names))?, suite).bytes().to_vec())
    }

    /// Reads the core document that `core` wrote.
    ///
    /// # Errors
    /// `InvalidInput` where a part is missing, unknown or not in its stated encoding.
    pub fn from_core(document: &[u8]) -> Result<Self> {
        let wrong = |what: &str| Error::invalid(format!("this is not the document of an act: {what}"));
        let json: Json = serde_json::from_slice(document).map_err(|e| wrong(&e.to_string()))?;
        let object = json.as_object().ok_or_else(|| wrong("it is not an object"))?;
        if object.len() != 6 {
            return Err(wrong("it must hold agent, chain, action, resource, context and usage, and nothing else"));
        }
        let text = |name: &str| object.get(name).and_then(Json::as_str).ok_or_else(|| wrong(&format!("`{name}` is missing")));
        let chain = base16ct::lower::decode_vec(text("chain")?).map_err(|_| wrong("`chain` is not hexadecimal"))?;
        let context = Encoded::from_json(object.get("context").cloned().unwrap_or(Json::Null))?;
        let usage = object.get("usage").and_then(Json::as_object).ok_or_else(|| wrong("`usage` is missing"))?;
        let usage = usage
            .iter()
            .map(|(meter, quantity)| {
                let large = quantity.get("__integer").and_then(Json::as_str).and_then(|digits| digits.parse().ok());
                quantity
                    .as_u64()
                    .or(large)
                    .map(|quantity| (meter.clone(), quantity))
                    .ok_or_else(|| wrong(&format!("`{meter}` is not a quantity")))
            })
            .collect::<Result<Vec<_>>>()?;
        Self::new(text("agent")?, &chain, text("action")?, text("resource")?, context, &usage)
    }

    /// The canonical document without terms: what two requests for the same act have in common.
    ///
    /// # Errors
    /// `Internal` where JSON cannot be written.
    pub fn core(&self) -> Result<Vec<u8>> {
        canonical(&self.core_json())
    }

    /// The canonical document under these terms: exactly what a grant agrees to.
    ///
    /// # Errors
    /// `InvalidInput` where the policy is empty.
    pub fn document(&self, terms: &Terms<'_>) -> Result<Vec<u8>> {
        if terms.policy.is_empty() {
            return Err(Error::invalid("an act is asked about under a named policy"));
        }
        let mut json = self.core_json();
        if let Some(object) = json.as_object_mut() {
            object.insert("policy".to_owned(), json!(terms.policy));
            object.insert("nonce".to_owned(), json!(base16ct::lower::encode_string(terms.nonce)));
            object.insert("expiry".to_owned(), Encoded::integer(&terms.expiry.to_string())?.into_json());
        }
        canonical(&json)
    }

    /// The digest of the document under these terms.
    ///
    /// # Errors
    /// As `document`.
    pub fn digest(&self, terms: &Terms<'_>, suite: Suite) -> Result<ActDigest> {
        Ok(ActDigest::over(&self.document(terms)?, suite))
    }

    /// The digest of the core document.
    ///
    /// # Errors
    /// As `core`.
    pub fn core_digest(&self, suite: Suite) -> Result<ActDigest> {
        Ok(ActDigest::over(&self.core()?, suite))
    }

    /// Who acts.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// `namespace:verb`.
    pub fn action(&self) -> &str {
        &self.action
    }

    /// On what.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    fn core_json(&self) -> Json {
        json!({
            "agent": self.agent, "chain": self.chain, "action": self.action,
            "resource": self.resource, "context": self.context, "usage": self.usage,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: [u8; 16] = [7; 16];

    fn act(agent: &str, resource: &str, amount: i64) -> Act {
        let chain = Act::chain_of(&["spiffe://creto.local/agent/a"], Suite::Standard).unwrap();
        let context = Encoded::record([("amount".to_owned(), Encoded::integer(&amount.to_string()).unwrap())]).unwrap();
        Act::new(agent, &chain, "tool:call", resource, context, &[("tool_calls".to_owned(), 1)]).unwrap()
    }

    fn terms(policy: &str, expiry: u64) -> Terms<'_> {
        Terms { policy, nonce: &NONCE, expiry }
    }

    #[test]
    fn the_document_is_the_one_that_an_outsider_can_write() {
        let document = act("a", "send_money", 5).document(&terms("payments", 1_700_000_000_000_000)).unwrap();
        assert_eq!(
            String::from_utf8(document).unwrap(),
            r#"{"action":"tool:call","agent":"a","chain":"9a4d52a1bdeb8a877e9c62f79c23ae794a6a8b0ad936fc4afa18100cf69f2ad4","context":{"amount":5},"expiry":1700000000000000,"nonce":"07070707070707070707070707070707","policy":"payments","resource":"send_money","usage":{"tool_calls":1}}"#
        );
    }

    #[test]
    fn cnsa2_digests_with_sha_384() {
        let digest = act("a", "r", 1).digest(&terms("p", 1), Suite::Cnsa2).unwrap();
        assert_eq!((digest.algorithm(), digest.bytes().len()), ("sha384", 48));
    }

    #[test]
    fn an_act_survives_being_stored() {
        let act = act("a", "r", i64::MAX);
        assert_eq!(Act::from_core(&act.core().unwrap()).unwrap(), act);
        assert!(Act::from_core(br#"{"agent":"a"}"#).is_err());
    }

    proptest! {
        #[test]
        fn any_edit_makes_another_act(a in "[a-z]{1,3}", r in "[a-z]{1,3}", n in 0..4_i64, p in "[a-z]{1,2}", e in 0..4_u64,
                                      a2 in "[a-z]{1,3}", r2 in "[a-z]{1,3}", n2 in 0..4_i64, p2 in "[a-z]{1,2}", e2 in 0..4_u64) {
            let one = act(&a, &r, n).digest(&terms(&p, e), Suite::Standard).unwrap();
            let two = act(&a2, &r2, n2).digest(&terms(&p2, e2), Suite::Standard).unwrap();
            prop_assert_eq!(one == two, (a, r, n, p, e) == (a2, r2, n2, p2, e2));
        }
    }
}
