//! `creto-nhi` for Python.

use crate::crypto::{Sealer, SigningKey, VerifyingKey};
use crate::error::{IntoPy as _, to_py};
use creto_crypto::Suite;
use creto_enablement_common::{AgentId, Error, ErrorKind};
use creto_nhi::{Hop, HopRequest, Verification};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// Parses a SPIFFE id, or raises.
pub fn agent_id(py: Python<'_>, text: &str) -> PyResult<AgentId> {
    AgentId::parse(text).map_err(Error::invalid).or_raise(py)
}

/// The secret half of a trust domain.
#[pyclass(frozen, module = "creto._core")]
pub struct Authority(pub creto_nhi::Authority);

#[pymethods]
impl Authority {
    /// Makes a new trust domain with fresh keys, valid for some seconds from now (seconds since the epoch).
    #[staticmethod]
    fn generate(py: Python<'_>, trust_domain: &str, suite: &str, now: u64, seconds: u64) -> PyResult<Self> {
        py.detach(|| creto_nhi::Authority::generate(trust_domain, Suite::parse(suite)?, now, seconds)).map(Self).or_raise(py)
    }

    /// Puts a stored authority together again.
    #[staticmethod]
    fn unseal(
        py: Python<'_>,
        trust_domain: &str,
        sealed: &[u8],
        certificates: Vec<Vec<u8>>,
        sealer: &Sealer,
        label: &str,
    ) -> PyResult<Self> {
        let key = sealer.0.unseal_signing_key(sealed, label).or_raise(py)?;
        creto_nhi::Authority::from_parts(trust_domain, key, certificates).map(Self).or_raise(py)
    }

    /// Seals its keys under a label, to be stored.
    fn seal<'py>(&self, py: Python<'py>, sealer: &Sealer, label: &str) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &sealer.0.seal_signing_key(self.0.key(), label).or_raise(py)?))
    }

    /// The public half.
    #[getter]
    fn domain(&self) -> TrustDomain {
        TrustDomain(self.0.domain().clone())
    }

    /// Its keys, to sign bundles with.
    #[getter]
    fn key(&self) -> SigningKey {
        SigningKey(self.0.key().clone())
    }

    /// Vouches for an identity (`kem`: its key-encapsulation key's public half): the statement that says so, as DSSE JSON.
    fn issue(&self, py: Python<'_>, id: &str, key: &VerifyingKey, kem: &[u8], now: u64, seconds: u64) -> PyResult<String> {
        let id = agent_id(py, id)?;
        py.detach(|| {
            let kem = creto_crypto::KemPublicKey::new(key.0.suite().kem(), kem)?;
            self.0.issue(&id, &key.0, &kem, now, seconds)
        })
        .or_raise(py)
    }

    fn __repr__(&self) -> String {
        format!("Authority({})", self.0.domain().name())
    }
}

/// The public half of a trust domain.
#[pyclass(frozen, module = "creto._core")]
pub struct TrustDomain(pub creto_nhi::TrustDomain);

#[pymethods]
impl TrustDomain {
    /// From its name, keys and self-signed certificates, which must agree.
    #[staticmethod]
    fn from_parts(py: Python<'_>, name: &str, key: &VerifyingKey, certificates: Vec<Vec<u8>>) -> PyResult<Self> {
        creto_nhi::TrustDomain::from_parts(name, key.0.clone(), certificates).map(Self).or_raise(py)
    }

    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// What its statements verify under.
    #[getter]
    fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key().clone())
    }

    /// Its self-signed certificates in DER, one for each algorithm.
    fn certificates<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.certificates().iter().map(|der| PyBytes::new(py, der)).collect()
    }

    /// Verifies a statement of this domain's authority and gives the identity that it vouches for.
    fn admit(&self, py: Python<'_>, statement: &str) -> PyResult<Identity> {
        py.detach(|| self.0.admit(statement)).map(|identity| Identity(Arc::new(identity))).or_raise(py)
    }

    fn __repr__(&self) -> String {
        format!("TrustDomain({})", self.0.name())
    }
}

/// A non-human identity that a trust domain vouches for: what others know of an agent.
///
/// Example:
///     >>> import tempfile
///     >>> from creto.nhi import Identities
///     >>> from creto.store import Store
///     >>> with Store(tempfile.mkdtemp()) as store:
///     ...     identities = Identities(store)
///     ...     identity = identities.agent("reader").identity
///     >>> identity.id, identity.suite, len(identity.certificates())
///     ('spiffe://creto.local/agent/reader', 'standard', 3)
#[pyclass(frozen, module = "creto._core")]
pub struct Identity(pub Arc<creto_nhi::AgentIdentity>);

#[pymethods]
impl Identity {
    /// Its SPIFFE id.
    #[getter]
    fn id(&self) -> &str {
        self.0.id.as_str()
    }

    /// `standard` or `cnsa2`.
    #[getter]
    fn suite(&self) -> &'static str {
        self.0.suite().name()
    }

    /// What its signatures verify under.
    #[getter]
    fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key().clone())
    }

    /// The identifiers of its signing keys, in hexadecimal, in the suite's order.
    #[getter]
    fn key_ids(&self) -> Vec<String> {
        self.0.verifying_key().key_ids().map(|(_, id)| id.hex()).collect()
    }

    /// The identifier of its key-encapsulation key, in hexadecimal.
    #[getter]
    fn kem_id(&self) -> String {
        self.0.kem_key().id().hex()
    }

    /// From when to when it is valid, in seconds since the epoch.
    #[getter]
    fn validity(&self) -> (u64, u64) {
        self.0.validity()
    }

    /// Its X.509-SVIDs in DER: one for each signature algorithm, then that of its key-encapsulation key.
    fn certificates<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.certificates().iter().map(|der| PyBytes::new(py, der)).collect()
    }

    fn __repr__(&self) -> String {
        format!("Identity({}, {:?})", self.0.id, self.0.verifying_key())
    }
}

/// The identities that a process knows.
#[pyclass(frozen, module = "creto._core")]
pub struct Directory(pub Arc<creto_nhi::Directory>);

#[pymethods]
impl Directory {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    /// Takes in an identity; the newest of a name comes first.
    fn add(&self, identity: &Identity) {
        self.0.add(Arc::clone(&identity.0));
    }

    /// Forgets every identity of a name.
    fn forget(&self, py: Python<'_>, id: &str) -> PyResult<()> {
        self.0.forget(&agent_id(py, id)?);
        Ok(())
    }

    /// The newest identity of a name, if one is known.
    fn find(&self, py: Python<'_>, id: &str) -> PyResult<Option<Identity>> {
        Ok(self.0.by_name(&agent_id(py, id)?).map(Identity))
    }

    /// Every identity of a name, the newest first; those after it verify what they signed before they were replaced.
    fn identities(&self, py: Python<'_>, id: &str) -> PyResult<Vec<Identity>> {
        use creto_nhi::Keys as _;
        Ok(self.0.identities(&agent_id(py, id)?).into_iter().map(Identity).collect())
    }

    fn __repr__(&self) -> &'static str {
        "Directory()"
    }
}

/// A chain of delegations that was verified, or an agent that acts for itself.
///
/// Example:
///     >>> import anyio, tempfile
///     >>> from creto.nhi import Chain, Identities
///     >>> from creto.store import Store
///     >>> Chain.direct("spiffe://creto.local/agent/reader").links
///     ['spiffe://creto.local/agent/reader']
///     >>> async def main() -> Chain:
///     ...     with Store(tempfile.mkdtemp()) as store:
///     ...         identities = Identities(store)
///     ...         identities.agent("lead"), identities.agent("reader")
///     ...         return identities.verify(await identities.delegate("lead", "reader", seconds=60))
///     >>> chain = anyio.run(main)
///     >>> [link.rsplit("/", 1)[1] for link in chain.links], chain.depth
///     (['lead', 'reader'], 0)
#[pyclass(frozen, module = "creto._core")]
pub struct Chain {
    pub inner: Arc<creto_nhi::DelegationChain>,
    epoch: u64,
}

#[pymethods]
impl Chain {
    /// An agent that acts for itself.
    #[staticmethod]
    fn direct(py: Python<'_>, agent: &str) -> PyResult<Self> {
        let agent = agent_id(py, agent)?;
        Ok(Self { inner: Arc::new(creto_nhi::DelegationChain::direct(agent)), epoch: 0 })
    }

    /// Names along the chain, the delegator first, the acting agent last.
    #[getter]
    fn links(&self) -> Vec<&str> {
        self.inner.links.iter().map(AgentId::as_str).collect()
    }

    /// Who set each attenuation, and its Cedar text.
    #[getter]
    fn attenuations(&self) -> Vec<(&str, &str)> {
        self.inner.attenuations().iter().map(|(by, text)| (by.as_str(), text.as_str())).collect()
    }

    /// What names this exact chain, 32 bytes.
    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.digest())
    }

    /// Until when it holds, in seconds since the epoch.
    #[getter]
    fn expiry(&self) -> u64 {
        self.inner.expiry()
    }

    /// How many further hops may follow.
    #[getter]
    fn depth(&self) -> u32 {
        self.inner.depth()
    }

    /// Whether it still holds: no revocation since it was verified, and not expired.
    ///
    /// Args:
    ///     epoch: The store's revocation epoch, which grows with every revocation.
    ///     now: Seconds since the epoch.
    fn is_current(&self, epoch: u64, now: u64) -> bool {
        self.inner.is_current(self.epoch, epoch, now)
    }

    fn __repr__(&self) -> String {
        format!("Chain({})", self.inner.links.iter().map(AgentId::as_str).collect::<Vec<_>>().join(" -> "))
    }
}

/// Verified chains, each verified once in an epoch.
#[pyclass(frozen, module = "creto._core")]
#[derive(Default)]
pub struct ChainCache(creto_nhi::ChainCache);

#[pymethods]
impl ChainCache {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Verifies hops (DSSE JSON) for an audience at a time in seconds since the epoch; the epoch moves with every revocation.
    fn verify(&self, py: Python<'_>, hops: Vec<String>, directory: &Directory, audience: &str, now: u64, epoch: u64) -> PyResult<Chain> {
        let hops: Vec<Hop> = hops.into_iter().map(Hop).collect();
        let verification = Verification { keys: &*directory.0, audience, now };
        match py.detach(|| self.0.verify(&hops, &verification, epoch)) {
            Ok(inner) => Ok(Chain { inner, epoch }),
            Err(refusal) => Err(refused(py, &refusal)),
        }
    }
}

fn refused(py: Python<'_>, refusal: &creto_nhi::Refusal) -> PyErr {
    to_py(py, &Error::new(ErrorKind::Unauthorized).with_context(refusal.to_string()))
}

/// Every name in a chain that nobody has verified yet.
#[pyfunction]
pub fn delegation_names(py: Python<'_>, hops: Vec<String>) -> PyResult<Vec<String>> {
    let hops: Vec<Hop> = hops.into_iter().map(Hop).collect();
    let names = creto_nhi::unverified_names(&hops).map_err(|refusal| refused(py, &refusal))?;
    Ok(names.iter().map(|id| id.as_str().to_owned()).collect())
}

/// Signs a hop: the delegator lets the delegatee act for it, within the attenuation (Cedar), at the audience, for some time.
#[pyfunction]
#[pyo3(signature = (delegator, key, delegatee, *, attenuation, audience, issued_at, expiry, depth, previous = None))]
#[expect(clippy::too_many_arguments, reason = "keyword-only in Python")]
pub fn delegate(
    py: Python<'_>,
    delegator: &str,
    key: &SigningKey,
    delegatee: &Identity,
    attenuation: &str,
    audience: &str,
    issued_at: u64,
    expiry: u64,
    depth: u32,
    previous: Option<&Chain>,
) -> PyResult<String> {
    let delegator = agent_id(py, delegator)?;
    let request = HopRequest { delegator: &delegator, delegatee: &delegatee.0, attenuation, audience, issued_at, expiry, depth };
    py.detach(|| Hop::sign(&request, &key.0, previous.map(|chain| &*chain.inner))).map(|hop| hop.0).or_raise(py)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Authority>()?;
    module.add_class::<TrustDomain>()?;
    module.add_class::<Identity>()?;
    module.add_class::<Directory>()?;
    module.add_class::<Chain>()?;
    module.add_class::<ChainCache>()?;
    module.add_function(wrap_pyfunction!(delegate, module)?)?;
    module.add_function(wrap_pyfunction!(delegation_names, module)?)?;
    Ok(())
}
