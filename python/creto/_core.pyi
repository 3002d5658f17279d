"""
The native half of creto; import the public names from `creto` instead.
"""

from os import PathLike
from typing import Any, SupportsFloat, SupportsIndex, final

from _typeshed import SupportsGetItem, SupportsLenAndGetItem
from typing_extensions import Buffer, disjoint_base

@final
class Act:
    """
    An act, as it is agreed to: who does what, for whom, to which resource, in which circumstances, at which cost.
    """
    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    def __new__(
        cls,
        /,
        agent: str,
        action: str,
        resource: str,
        *,
        chain: SupportsGetItem[int, str] = ...,
        chain_digest: bytes | None = None,
        context: dict[Any, Any] | None = None,
        usage: dict[Any, Any] | None = None,
        suite: str = "standard",
    ) -> Act: ...
    def __repr__(self, /) -> str: ...
    @property
    def action(self, /) -> str:
        """
        `namespace:verb`.
        """
    @property
    def agent(self, /) -> str:
        """
        Who acts.
        """
    @property
    def chain(self, /) -> list[str]:
        """
        The names along the delegation chain, the first delegator first.
        """
    def core(self, /) -> bytes:
        """
        The canonical document without terms (RFC 8785): what two requests for the same act have in common.
        """
    def core_digest(self, /) -> bytes:
        """
        The digest of `core()`.
        """
    def digest(self, /, policy: str, nonce: bytes, expiry_us: SupportsIndex) -> bytes:
        """
        The digest of `document(...)`: SHA-256, or SHA-384 for `cnsa2`.
        """
    def document(self, /, policy: str, nonce: bytes, expiry_us: SupportsIndex) -> bytes:
        """
        The canonical document that a grant agrees to.
        """
    @staticmethod
    def from_core(document: bytes, suite: str = "standard", *, chain: SupportsGetItem[int, str] = ...) -> Act:
        """
        Reads what `core` wrote.
        """
    @property
    def resource(self, /) -> str:
        """
        On what.
        """
    @property
    def suite(self, /) -> str:
        """
        The suite that chooses the digest.
        """

@final
class ActPrice:
    """
    The prices of one kind of act: (meter, price, [(context beyond, price)], whether its units are context), each price a decimal text.
    """
    def __new__(
        cls, /, meters: SupportsGetItem[int, tuple[str, str, SupportsGetItem[int, tuple[SupportsIndex, str]], bool]]
    ) -> ActPrice: ...
    def cost(self, /, usage: dict[Any, Any]) -> int:
        """
        What the usage costs, in billionths of the currency's unit, rounded up.
        """

@final
class Authority:
    """
    The secret half of a trust domain.
    """
    def __repr__(self, /) -> str: ...
    @property
    def domain(self, /) -> TrustDomain:
        """
        The public half.
        """
    @staticmethod
    def generate(trust_domain: str, suite: str, now: SupportsIndex, seconds: SupportsIndex) -> Authority:
        """
        Makes a new trust domain with fresh keys, valid for some seconds from now (seconds since the epoch).
        """
    def issue(self, /, id: str, key: VerifyingKey, kem: bytes, now: SupportsIndex, seconds: SupportsIndex) -> str:
        """
        Vouches for an identity (`kem`: its key-encapsulation key's public half): the statement that says so, as DSSE JSON.
        """
    @property
    def key(self, /) -> SigningKey:
        """
        Its keys, to sign bundles with.
        """
    def seal(self, /, sealer: Sealer, label: str) -> bytes:
        """
        Seals its keys under a label, to be stored.
        """
    @staticmethod
    def unseal(
        trust_domain: str,
        sealed: bytes,
        certificates: SupportsGetItem[int, SupportsGetItem[int, SupportsIndex]],
        sealer: Sealer,
        label: str,
    ) -> Authority:
        """
        Puts a stored authority together again.
        """

@final
class Bridge:
    """
    A queue of completions; one per event loop.
    """
    def __new__(cls, /) -> Bridge: ...
    def drain(self, /) -> list[tuple[int, Any | None, Any | None]]:
        """
        Takes all that is complete: `(token, value, exception)`, one of the two being None.
        """
    def fileno(self, /) -> int:
        """
        The descriptor to watch: readable when there is something to drain.
        """

@final
class Chain:
    """
    A chain of delegations that was verified, or an agent that acts for itself.

    Example:
        >>> import anyio, tempfile
        >>> from creto.nhi import Chain, Identities
        >>> from creto.store import Store
        >>> Chain.direct("spiffe://creto.local/agent/reader").links
        ['spiffe://creto.local/agent/reader']
        >>> async def main() -> Chain:
        ...     with Store(tempfile.mkdtemp()) as store:
        ...         identities = Identities(store)
        ...         identities.agent("lead"), identities.agent("reader")
        ...         return identities.verify(await identities.delegate("lead", "reader", seconds=60))
        >>> chain = anyio.run(main)
        >>> [link.rsplit("/", 1)[1] for link in chain.links], chain.depth
        (['lead', 'reader'], 0)
    """
    def __repr__(self, /) -> str: ...
    @property
    def attenuations(self, /) -> list[tuple[str, str]]:
        """
        Who set each attenuation, and its Cedar text.
        """
    @property
    def depth(self, /) -> int:
        """
        How many further hops may follow.
        """
    @property
    def digest(self, /) -> bytes:
        """
        What names this exact chain, 32 bytes.
        """
    @staticmethod
    def direct(agent: str) -> Chain:
        """
        An agent that acts for itself.
        """
    @property
    def expiry(self, /) -> int:
        """
        Until when it holds, in seconds since the epoch.
        """
    def is_current(self, /, epoch: SupportsIndex, now: SupportsIndex) -> bool:
        """
        Whether it still holds: no revocation since it was verified, and not expired.

        Args:
            epoch: The store's revocation epoch, which grows with every revocation.
            now: Seconds since the epoch.
        """
    @property
    def links(self, /) -> list[str]:
        """
        Names along the chain, the delegator first, the acting agent last.
        """

@final
class ChainCache:
    """
    Verified chains, each verified once in an epoch.
    """
    def __new__(cls, /) -> ChainCache: ...
    def verify(
        self,
        /,
        hops: SupportsGetItem[int, str],
        directory: Directory,
        audience: str,
        now: SupportsIndex,
        epoch: SupportsIndex,
    ) -> Chain:
        """
        Verifies hops (DSSE JSON) for an audience at a time in seconds since the epoch; the epoch moves with every revocation.
        """

@final
class Decision:
    """
    What policy says about one act; it is true where the act is allowed.

    Example:
        >>> import creto
        >>> authz = creto.AuthzClient()
        >>> _ = authz.install('@id("tools") permit (principal, action == Action::"tool:call", resource);')
        >>> decision = authz.check_nowait("spiffe://creto.local/agent/a", "tool:call", "search")
        >>> bool(decision), decision.outcome, decision.permit
        (True, 'allow', 'tools')
    """
    def __bool__(self, /) -> bool: ...
    def __repr__(self, /) -> str: ...
    @property
    def age(self, /) -> float:
        """
        Seconds since the version that decided was made, by a set installed or entities changed.
        """
    @property
    def allowed(self, /) -> bool:
        """
        True where the act may go on without anybody being asked.
        """
    @property
    def audit(self, /) -> str:
        """
        "before" or "after": when the act is to be recorded.
        """
    @property
    def digest(self, /) -> bytes:
        """
        SHA-256 of the policy set that decided.
        """
    @property
    def outcome(self, /) -> str:
        """
        "allow", "deny" or "oversight".
        """
    @property
    def permit(self, /) -> str | None:
        """
        The permit that applies, the first in sorted order.
        """
    @property
    def policy_id(self, /) -> str | None:
        """
        The first, in sorted order, of the policies that ask for a human; None unless one does.
        """
    @property
    def policy_ids(self, /) -> list[str]:
        """
        Every policy that asks for a human, sorted.
        """
    @property
    def reason(self, /) -> str | None:
        """
        Why it is denied; None unless it is.
        """

@final
class Directory:
    """
    The identities that a process knows.
    """
    def __new__(cls, /) -> Directory: ...
    def __repr__(self, /) -> str: ...
    def add(self, /, identity: Identity) -> None:
        """
        Takes in an identity; the newest of a name comes first.
        """
    def find(self, /, id: str) -> Identity | None:
        """
        The newest identity of a name, if one is known.
        """
    def forget(self, /, id: str) -> None:
        """
        Forgets every identity of a name.
        """
    def identities(self, /, id: str) -> list[Identity]:
        """
        Every identity of a name, the newest first; those after it verify what they signed before they were replaced.
        """

@final
class Gate:
    """
    The way every act goes in.
    """
    def __new__(cls, /, policy: PolicyEngine, quota: QuotaEnforcer, ledger: Ledger, clock: HybridLogicalClock) -> Gate:
        """
        A gate over these parts.
        """
    def consult(
        self, /, principal: Principal, action: str, resource: str, context: dict[Any, Any] | None = None
    ) -> list[str]:
        """
        What policy says to the whole chain, with nothing reserved and nothing recorded: the ids of the policies that ask a human, none where
        nobody is asked; raises UnauthorizedError where it says no.
        """
    def enter(
        self,
        /,
        principal: Principal,
        action: str,
        resource: str,
        context: dict[Any, Any] | None = None,
        usage: dict[Any, Any] | None = None,
        grant: SupportsGetItem[int, Grant] | None = None,
    ) -> Permit:
        """
        Lets an act in, or raises why not: UnauthorizedError, QuotaExceededError, or OversightRequiredError with every asking policy in
        `policy_ids`. `grant` holds what humans agreed to; only grants that cover exactly this act count.
        """
    def principal(
        self,
        /,
        agent: str,
        path: SupportsGetItem[int, str] = ...,
        chain: SupportsGetItem[int, Any] = ...,
        *,
        sandbox: str | None = None,
    ) -> Principal:
        """
        Prepares a principal. `path` is the quota path, the organisation first; `chain` holds ids, or pairs of an id and the Cedar text that
        the hop to it was narrowed to. `sandbox` is where it acts from, which its records name.
        """
    def refused(
        self, /, principal: Principal, action: str, resource: str, usage: dict[Any, Any] | None, why: str
    ) -> int | None:
        """
        Puts on record that an act was refused for units of a shared quota that never came; the ticket of the record.
        """
    def shadow(self, /, engine: PolicyEngine | None) -> None:
        """
        Asks a second engine about every act beside the one that serves, and records where it would decide otherwise; None ends that.
        """
    @property
    def shadow_counts(self, /) -> tuple[int, int]:
        """
        How many acts were asked of the second engine, and how many of them it would have decided otherwise.
        """

@final
class Grant:
    """
    A verified agreement to one act under one policy; only `verify` makes one.
    """
    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    @property
    def approver(self, /) -> str:
        """
        Who agreed.
        """
    def covers(self, /, act: Act) -> bool:
        """
        True where this is exactly the act that was agreed to.
        """
    @property
    def decided_us(self, /) -> int:
        """
        When, in microseconds since the Unix epoch.
        """
    @property
    def digest(self, /) -> bytes:
        """
        The digest of the act.
        """
    @property
    def expiry_us(self, /) -> int:
        """
        How long it is good, in microseconds since the Unix epoch.
        """
    @property
    def policy_id(self, /) -> str:
        """
        The policy that the agreement is for.
        """
    @property
    def reason(self, /) -> str:
        """
        Why.
        """
    @property
    def request(self, /) -> str:
        """
        The oversight request that was answered.
        """
    @staticmethod
    def verify(envelope: str, act: Act, approver: str, key: VerifyingKey, now_us: SupportsIndex) -> Grant:
        """
        Verifies a DSSE envelope: signed by exactly this approver's keys, about exactly this act, an agreement, not expired.
        """
    @staticmethod
    def verify_denial(envelope: str, act: Act, approver: str, key: VerifyingKey) -> None:
        """
        Verifies that the approver has denied exactly this act.
        """

@final
class HybridLogicalClock:
    """
    The clock of one state folder: every word it gives is later than all given or observed before, in any process.
    """
    def __new__(cls, /, path: str | PathLike[str]) -> HybridLogicalClock:
        """
        Opens the clock file at `path`, made if it is missing.
        """
    def ahead(self, /) -> float:
        """
        Seconds by which the clock is ahead of the wall clock at this moment.
        """
    def install(self, /) -> bool:
        """
        Makes `consensus_timestamp()` of this process read this clock; False where another is installed already.
        """
    def jumps(self, /) -> tuple[int, float, int]:
        """
        `(count, last in seconds, refused)`: steps of the wall clock beyond a minute, and words refused for being too far ahead.
        """
    def now(self, /) -> int:
        """
        A word later than every one given or observed before: microseconds since the Unix epoch, times 4096, plus a counter.
        """
    def observe(self, /, word: SupportsIndex) -> bool:
        """
        Takes over a later word from elsewhere; False where it is more than a minute ahead and was refused.
        """

@final
class Identity:
    """
    A non-human identity that a trust domain vouches for: what others know of an agent.

    Example:
        >>> import tempfile
        >>> from creto.nhi import Identities
        >>> from creto.store import Store
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     identities = Identities(store)
        ...     identity = identities.agent("reader").identity
        >>> identity.id, identity.suite, len(identity.certificates())
        ('spiffe://creto.local/agent/reader', 'standard', 3)
    """
    def __repr__(self, /) -> str: ...
    def certificates(self, /) -> list[bytes]:
        """
        Its X.509-SVIDs in DER: one for each signature algorithm, then that of its key-encapsulation key.
        """
    @property
    def id(self, /) -> str:
        """
        Its SPIFFE id.
        """
    @property
    def kem_id(self, /) -> str:
        """
        The identifier of its key-encapsulation key, in hexadecimal.
        """
    @property
    def key_ids(self, /) -> list[str]:
        """
        The identifiers of its signing keys, in hexadecimal, in the suite's order.
        """
    @property
    def suite(self, /) -> str:
        """
        `standard` or `cnsa2`.
        """
    @property
    def validity(self, /) -> tuple[int, int]:
        """
        From when to when it is valid, in seconds since the epoch.
        """
    @property
    def verifying_key(self, /) -> VerifyingKey:
        """
        What its signatures verify under.
        """

@final
class KemKey:
    """
    The secret half of a key-encapsulation key.
    """
    def __repr__(self, /) -> str: ...
    @staticmethod
    def generate(suite: str = "standard") -> KemKey:
        """
        Makes a fresh key of a suite.
        """
    @property
    def id(self, /) -> str:
        """
        The identifier of its public half, in hexadecimal.
        """
    def public(self, /) -> bytes:
        """
        The public half in its algorithm's own encoding.
        """
    def seal(self, /, sealer: Sealer, label: str) -> bytes:
        """
        Seals the key under a label, to be stored.
        """
    @staticmethod
    def unseal(sealed: bytes, sealer: Sealer, label: str) -> KemKey:
        """
        Unseals a key that was sealed under the same label.
        """

@final
class Ledger:
    """
    The ledger of a state folder, for writing: one shard, held by this process until it is closed.
    """
    def __new__(
        cls,
        /,
        folder: str | PathLike[str],
        clock: HybridLogicalClock,
        signer: SigningKey,
        *,
        origin: str = "creto.local/ledger",
        checkpoint_seconds: SupportsFloat | SupportsIndex = 1.0,
        checkpoint_records: SupportsIndex = 10000,
    ) -> Ledger:
        """
        Takes over a free shard of the ledger in `folder`, or makes one, and recovers what its last holder left.
        """
    def __repr__(self, /) -> str: ...
    def append(self, /, record: dict[Any, Any], bridge: Bridge, token: SupportsIndex) -> None:
        """
        Appends a record; completes with its index once it is on disk, or None where a record with its id was there.
        """
    def append_blocking(self, /, record: dict[Any, Any], timeout: SupportsFloat | SupportsIndex | None = None) -> int:
        """
        Appends a record and returns its ticket once it is on disk.
        """
    def append_records(self, /, records: Any) -> None:
        """
        Appends records under their fixed ids, skips those that this shard has, and returns once all are on disk.
        """
    def close(self, /, bridge: Bridge, token: SupportsIndex) -> None:
        """
        Writes and publishes all that was taken and gives the shard free; completes when that is done.
        """
    def close_blocking(self, /) -> None:
        """
        Writes and publishes all that was taken and gives the shard free.
        """
    def durable(self, /, ticket: SupportsIndex, bridge: Bridge, token: SupportsIndex) -> None:
        """
        Completes once the record with this ticket, and all before it, are on disk.
        """
    def durable_blocking(self, /, ticket: SupportsIndex, timeout: SupportsFloat | SupportsIndex | None = None) -> None:
        """
        Returns once the record with this ticket, and all before it, are on disk.
        """
    def enqueue(self, /, record: dict[Any, Any]) -> int:
        """
        Puts a record in the queue, which never drops, and returns its ticket; waits only where the queue is full.
        """
    def flushed(self, /, bridge: Bridge, token: SupportsIndex) -> None:
        """
        Completes once all records that were taken so far are on disk.
        """
    @property
    def origin(self, /) -> str:
        """
        What its checkpoints are signed under.
        """
    def publish(self, /, bridge: Bridge, token: SupportsIndex) -> None:
        """
        Publishes a checkpoint over all that was taken so far; completes with how many records it covers.
        """
    def publish_blocking(self, /, timeout: SupportsFloat | SupportsIndex | None = None) -> int:
        """
        Publishes a checkpoint over all that was taken so far, and returns how many records it covers.
        """
    @property
    def published(self, /) -> int:
        """
        Records covered by the checkpoint on disk.
        """
    def reader(self, /) -> LedgerShard:
        """
        The shard for reading.
        """
    @property
    def replayed(self, /) -> int:
        """
        How many records were found in segments at opening: 0 where the last holder closed the shard.
        """
    @property
    def shard(self, /) -> str:
        """
        The name of the shard.
        """

@final
class LedgerFollower:
    """
    A place in one shard; what has come since is read once.
    """
    @property
    def next(self, /) -> int:
        """
        The index of the record that comes next.
        """
    def poll(self, /, most: SupportsIndex = ...) -> list[Any]:
        """
        The records that have come since last asked, at most so many, in order, as dicts.
        """
    def poll_terms(self, /, shard: SupportsIndex, most: SupportsIndex) -> tuple[list[Any], list[Any], list[Any]]:
        """
        The same as rows for an index, which say `shard` in their second place: (time, shard, at, what, resource, act, id, kind, ended, subject) for each
        record, (party, time, shard, at) for each of its parties, (number, text) for each text that was not given before.
        """

@final
class LedgerShard:
    """
    One shard of a ledger, for reading, from any process.
    """
    def __new__(cls, /, path: str | PathLike[str]) -> LedgerShard:
        """
        The shard in a folder; nothing is read yet.
        """
    def checkpoint(self, /) -> dict[Any, Any] | None:
        """
        The latest checkpoint as `{origin, size, root, note}`, signatures unchecked; None before the first.
        """
    def consistency(self, /, old: SupportsIndex, new: SupportsIndex) -> list[str]:
        """
        The consistency proof between two sizes, as hexadecimal hashes (RFC 6962, 2.1.2).
        """
    def entry(self, /, index: SupportsIndex, size: SupportsIndex) -> bytes:
        """
        The bytes of one record: what its leaf is the hash of.
        """
    def follow(self, /, next: SupportsIndex) -> LedgerFollower:
        """
        Follows the shard from record `next` on.
        """
    @property
    def name(self, /) -> str:
        """
        The name of the shard.
        """
    def pick(self, /, indexes: set[SupportsIndex]) -> list[Any]:
        """
        Those of these records that are there, in order, as dicts with `covered`: whether the latest checkpoint covers them.
        """
    def prove(self, /, index: SupportsIndex) -> str:
        """
        The proof, as C2SP tlog-proof text, that a record is in the log.
        """
    def query(
        self,
        /,
        *,
        agent: str | None = None,
        action: str | None = None,
        resource: str | None = None,
        act: Any | None = None,
        id: Any | None = None,
        kind: str | None = None,
        outcome: str | None = None,
        since: SupportsIndex | None = None,
        until: SupportsIndex | None = None,
        limit: SupportsIndex = 1000,
    ) -> list[Any]:
        """
        The records that match, the latest `limit` of them, in order, as dicts with `covered`: whether the latest checkpoint covers them.
        """
    def records(self, /, start: SupportsIndex, end: SupportsIndex, size: SupportsIndex) -> list[Any]:
        """
        The records from `start` to before `end`, as dicts; `size` is that of a checkpoint which covers them.
        """
    def tail(self, /, start: SupportsIndex) -> list[Any]:
        """
        The records from `start` on that are on disk but may not be covered by a checkpoint yet, as dicts.
        """
    def verify(
        self,
        /,
        keys: SupportsGetItem[int, VerifyingKey],
        seen: SupportsGetItem[int, str] = ...,
        progress: Progress | None = None,
    ) -> dict[Any, Any]:
        """
        Checks every record, tile and signature; returns the checkpoint as a dict. `seen` are notes known from elsewhere; `progress` is counted up.
        """
    def witness_request(self, /, old: SupportsIndex) -> tuple[str, str]:
        """
        What a witness is asked with: the request's body, and the checkpoint in it, which extends one over `old` records.
        """

@final
class LedgerSubjects:
    """
    The keys under which records hold personal data, one for each subject, each erasable.
    """
    def __new__(cls, /, folder: str | PathLike[str], sealer: Sealer) -> LedgerSubjects:
        """
        The subject keys of a folder, made where it is missing.
        """
    def erase(self, /, subject: str) -> bool:
        """
        Erases a subject's key; False where it was erased before, or never known.
        """
    def erase_pseudonym(self, /, pseudonym: str) -> bool:
        """
        Erases the key of a subject that only its pseudonym is known of; False where it was erased before, or never known.
        """
    def kept(self, /) -> list[tuple[str, float]]:
        """
        The subjects whose keys are there: pairs of the pseudonym and when its key was made, in seconds since the Unix epoch.
        """
    def open(self, /, subject: str, record: Any, text: str) -> bytes:
        """
        Reads what `seal` wrote; raises NotFoundError where the subject was erased.
        """
    def pseudonym(self, /, subject: str) -> str:
        """
        The name that stands in records for a subject.
        """
    def seal(self, /, subject: str, record: Any, plain: bytes) -> tuple[str, str]:
        """
        Encrypts what the record of this id says about a subject: its pseudonym, and the text for the record.
        """

@final
class LedgerWitness:
    """
    A witness: remembers the latest checkpoint of each log that it knows, and cosigns only what extends it.
    """
    def __new__(
        cls, /, folder: str | PathLike[str], name: str, key: SigningKey, logs: SupportsGetItem[int, str]
    ) -> LedgerWitness:
        """
        A witness that remembers in `folder`, signs as `name`, and knows the logs of these verifier keys.
        """
    def add_checkpoint(self, /, body: bytes, now: SupportsIndex) -> tuple[int, str, str]:
        """
        Answers a request of C2SP tlog-witness: HTTP status, media type, body. `now` is in seconds since the Unix epoch.
        """
    @property
    def verifier_key(self, /) -> str:
        """
        The verifier key under which its cosignatures are checked.
        """

@final
class Permit:
    """
    An act that was let in: settle it once; dropped unsettled, it gives back what it holds.
    """
    @property
    def act(self, /) -> bytes:
        """
        The id that intent and outcome share.
        """
    def intent(self, /) -> int:
        """
        Puts the intent on record, and gives its ticket.
        """
    @property
    def policy(self, /) -> str:
        """
        The policy that let the act in.
        """
    def settle(self, /, failure: str | None = None, usage: dict[Any, Any] | None = None) -> int:
        """
        Charges or gives back, and puts the outcome on record; gives its ticket. `failure` says why the act failed; None means success.
        `usage` is what was used; without it, success charges what was reserved and failure nothing.
        """
    @property
    def wants_intent(self, /) -> bool:
        """
        True where the intent has to be durable before the act starts.
        """

@final
class PolicyEngine:
    """
    Decides by the installed policy set; with none installed, everything is denied.

    Example:
        >>> from creto.authz import PolicyEngine
        >>> engine = PolicyEngine()
        >>> _, warnings = engine.install('permit (principal, action, resource) when { context has purpose };')
        >>> engine.check_nowait("spiffe://t/agent/a", "tool:call", 'Tool::"x"', {"purpose": "test"}).outcome
        'allow'
    """
    def __new__(cls, /) -> PolicyEngine: ...
    def check_nowait(
        self, /, agent: str, action: str, resource: str, context: dict[Any, Any] | None = None
    ) -> Decision:
        """
        Decides; every doubt is a denial.
        """
    def check_places(
        self, /, principals: Roster, actions: Roster, resources: Roster, principal: Any, action: Any, resource: Any
    ) -> bytearray:
        """
        Decides many acts without circumstances: three rosters, and for each act the places of its parts in them, as three buffers of 32-bit
        unsigned integers of one length. Gives a byte for each: 0 denied, 1 allowed, 2 a human has to agree.
        """
    @property
    def digest(self, /) -> bytes | None:
        """
        SHA-256 of the installed set, over its policies and schema; None where none is installed.
        """
    def explain(
        self, /, agent: str, action: str, resource: str, context: dict[Any, Any] | None = None
    ) -> list[dict[Any, Any]]:
        """
        Every policy whose scope fits, with its conditions and their values.
        """
    def install(
        self, /, policies: str, schema: str | None = None, entities: str | None = None
    ) -> tuple[bytes, list[dict[Any, Any]]]:
        """
        Parses, validates and installs a policy set; one that is refused leaves the one before it serving. Gives its digest and warnings.
        """
    def policy_ids(self, /) -> list[str]:
        """
        The ids of the policies that serve.
        """
    def prepare(self, /, agent: str, action: str, resource: str | None = None) -> Prepared:
        """
        An agent and an action looked up once, for repeated checks; good whatever is installed later.
        """
    def reads(self, /, action: str) -> list[str]:
        """
        The names of the context that the policies which may apply to the action look at; `*` for the context as a whole.
        """
    def remove_entities(self, /, uids: SupportsGetItem[int, tuple[str, str]]) -> None:
        """
        Removes entities, each a pair of type and id; what is not there is passed over.
        """
    def roster(self, /, role: str, names: SupportsGetItem[int, str], kind: str | None = None) -> Roster:
        """
        Names looked up once, for many checks: `role` is "principal", "action" or "resource"; bare resources are of type `kind`.
        """
    @property
    def size(self, /) -> tuple[int, int]:
        """
        How many policies serve, and the bytes of their compiled form.
        """
    def upsert_entities(self, /, entities: str) -> None:
        """
        Adds or replaces entities, a JSON array in Cedar's format; policies are not compiled again.
        """

@final
class Prepared:
    """
    An agent and an action looked up once, for repeated checks.
    """
    def check_nowait(self, /, resource: str | None = None, context: dict[Any, Any] | None = None) -> Decision:
        """
        Decides; `resource` names it where it was not prepared.
        """

@final
class PreparedQuota:
    """
    A path and its meters, looked up once.
    """
    def explain(self, units: SupportsIndex = 1, /) -> dict[Any, Any] | None:
        """
        Why `units` of the first meter would not fit, as a dict; None where they would.
        """
    def reserve(self, units: int | None = None, /, *more: int) -> Reservation:
        """
        Holds one amount for each meter, or raises QuotaExceededError; without any, 1 of the only meter.
        """
    def take(self, units: SupportsIndex = 1, /) -> bool:
        """
        Takes `units` of the first meter for good; False where a quota has no room.
        """

@final
class Principal:
    """
    Who acts, for whom, and against whose quota: prepared once, used for many acts.
    """
    @property
    def agent(self, /) -> str:
        """
        The acting agent's id.
        """
    @property
    def chain(self, /) -> list[str]:
        """
        The links of the delegation chain, the first delegator first.
        """
    @property
    def path(self, /) -> list[str]:
        """
        The quota path, the organisation first.
        """

@final
class Progress:
    """
    Counts records as they are verified; may be read from another thread.
    """
    def __new__(cls, /) -> Progress: ...
    @property
    def count(self, /) -> int:
        """
        How many so far.
        """

@final
class QuotaBatch:
    """
    Chains of one meter, looked up once, for arrays of checks.
    """
    def __len__(self, /) -> int: ...
    def add(self, /, path: Any, meter: str) -> int:
        """
        Adds a chain; its number.
        """
    def take(self, /, which: Buffer, units: Any) -> bytearray:
        """
        Takes units (a number, or one uint64 for each) for the chains of a uint32 array, in turn; one byte of 0 or 1 for each.
        """

@disjoint_base
class QuotaEnforcer:
    """
    Counts before the act, along the whole path, on all quotas or on none.
    """
    def __new__(cls, /, rules: str, *, hold_seconds: SupportsFloat | SupportsIndex = 900.0) -> QuotaEnforcer: ...
    def batch(self, /) -> QuotaBatch:
        """
        An empty batch over this enforcer.
        """
    def boost(self, /, scope: str, meter: str, units: Any, until: Any, *, now: SupportsIndex | None = None) -> int:
        """
        Allows one scope `units` more until `until` (microseconds since the epoch); how many counters were raised.
        """
    def check_quota_nowait(self, /, path: Any, usage: dict[Any, Any], *, now: SupportsIndex | None = None) -> None:
        """
        Raises QuotaExceededError where `usage` would not fit; takes nothing.
        """
    def consume_nowait(self, /, path: Any, usage: dict[Any, Any], *, now: SupportsIndex | None = None) -> None:
        """
        Takes `usage` for good, or raises QuotaExceededError.
        """
    def counters(self, /, *, now: SupportsIndex | None = None) -> list[dict[Any, Any]]:
        """
        Every counter, as dicts.
        """
    def expire(self, /, *, now: SupportsIndex | None = None) -> None:
        """
        Gives back what overdue reservations hold.
        """
    def explain(
        self, /, path: Any, usage: dict[Any, Any], *, now: SupportsIndex | None = None
    ) -> dict[Any, Any] | None:
        """
        Why `usage` would not fit, as a dict; None where it would.
        """
    def forked(self, /) -> None:
        """
        To be called in a forked child: leases stay with the parent.
        """
    def grant(
        self,
        /,
        need: dict[Any, Any],
        held: SupportsIndex,
        until: SupportsIndex,
        total: SupportsIndex | None = None,
        *,
        now: SupportsIndex | None = None,
    ) -> bool:
        """
        Takes over granted units (a dict of `lease_needs`, how many this process has now, usable until in microseconds, what all hold
        together); False where what is new goes back.
        """
    def install(self, /, rules: str, *, now: SupportsIndex | None = None) -> None:
        """
        Installs another list of rules (JSON); counts go on where scope, meter and window are the same.
        """
    def lease_needs(self, /, *, now: SupportsIndex | None = None) -> list[dict[Any, Any]]:
        """
        What has to be leased since the last call, as dicts.
        """
    def leases_held(self, /, *, now: SupportsIndex | None = None) -> list[dict[Any, Any]]:
        """
        Every lease held, as dicts.
        """
    def notices(self, /) -> list[dict[Any, Any]]:
        """
        The notices given since the last call, as dicts.
        """
    def open_reservations(self, /) -> int:
        """
        How many reservations are open.
        """
    def prepare(self, /, path: Any, meters: Any) -> PreparedQuota:
        """
        Looks a path and its meters up once.
        """
    def replay(self, /, records: SupportsGetItem[int, tuple[Any, dict[Any, Any], SupportsIndex, bytes]]) -> int:
        """
        Counts what records of the ledger say was used: (path, usage, timestamp word, act id of 16 bytes), each act once; how many.
        """
    def reserve_nowait(self, /, path: Any, usage: dict[Any, Any], *, now: SupportsIndex | None = None) -> Reservation:
        """
        Holds `usage` until it is committed, released or overdue, or raises QuotaExceededError.
        """
    def surrender(self, /, lease: dict[Any, Any], *, now: SupportsIndex | None = None) -> int:
        """
        Gives up what is leased and not used (a dict of `leases_held`); how many units go back.
        """
    def wake_fd(self, /) -> int:
        """
        A descriptor that becomes readable when units are wanted; the caller owns it.
        """

@final
class Reservation:
    """
    What is held for one act: commit it, release it, or use it as a context manager (commits; releases on an exception).

    Example:
        >>> from creto.metering import QuotaEnforcer
        >>> quota = QuotaEnforcer([{"scope": "team", "meter": "m", "limit": 10}])
        >>> with quota.reserve_nowait(("acme", "research"), {"m": 8}) as held:
        ...     held.commit({"m": 5})
        >>> held.open, quota.counters()[0]["used"]
        (False, 5)
    """
    def __enter__(self, /) -> Reservation: ...
    def __exit__(self, /, kind: Any, _value: Any, _trace: Any) -> bool: ...
    def commit(self, /, usage: dict[Any, Any] | None = None, *, now: SupportsIndex | None = None) -> None:
        """
        Turns what is held into what was used; without `usage`, all of it. A second call changes nothing.
        """
    @property
    def id(self, /) -> int:
        """
        Its number.
        """
    @property
    def open(self, /) -> bool:
        """
        True until it is committed or released.
        """
    def release(self, /, *, now: SupportsIndex | None = None) -> None:
        """
        Gives back all that is held.
        """

@final
class Roster:
    """
    Names looked up once, for many checks.
    """
    def __len__(self, /) -> int: ...

@final
class SandboxLease:
    """
    A claimed sandbox.
    """
    def answer(self, /, question: SupportsIndex, allowed: bool) -> bool:
        """
        Answers a question; False where there is no such open question.
        """
    def apply(
        self,
        /,
        agreed: SupportsGetItem[int, tuple[str | PathLike[str], str, str | None, str | None, SupportsIndex | None]],
        bridge: Bridge,
        token: SupportsIndex,
    ) -> None:
        """
        Carries out the changes at these paths, as long as path, kind, digests and mode are still those that were listed.
        """
    def changes(self, /, bridge: Bridge, token: SupportsIndex) -> None:
        """
        Completes with a list of changes, each a dict.
        """
    def close(self, /, bridge: Bridge, token: SupportsIndex) -> None:
        """
        Completes when the sandbox has ended.
        """
    def contents(self, /, path: str | PathLike[str], most: SupportsIndex, bridge: Bridge, token: SupportsIndex) -> None:
        """
        Completes with a path's content before and after, at most `most` bytes each, None where there is none.
        """
    def hold(self, /, held: bool) -> None:
        """
        Keeps back what programs write to the host's descriptors, or lets it go; once this returns nothing is being written.
        """
    @property
    def id(self, /) -> str:
        """
        Its name on this machine.
        """
    def next_event(self, /, bridge: Bridge, token: SupportsIndex) -> None:
        """
        Completes with the next event as a dict, or None when the sandbox has ended.
        """
    def resize(self, /, run: SupportsIndex, rows: SupportsIndex, columns: SupportsIndex) -> None:
        """
        Tells a run's terminal its size.
        """
    def run(
        self,
        /,
        argv: SupportsGetItem[int, str],
        env: dict[str, str],
        cwd: str | PathLike[str] | None,
        terminal: tuple[SupportsIndex, SupportsIndex] | None,
        stdin: SupportsIndex | SupportsGetItem[int, SupportsIndex] | None,
        stdout: SupportsIndex | None,
        stderr: SupportsIndex | None,
        bridge: Bridge,
        token: SupportsIndex,
    ) -> int:
        """
        Starts a program; completes with `(status, stdout, stderr, truncated)`, and gives back the run's number at once.
        """
    def signal(self, /, run: SupportsIndex, signal: SupportsIndex) -> None:
        """
        Sends a signal to a run.
        """
    def withdraw(self, /, question: SupportsIndex) -> None:
        """
        Takes the yes to a question back: it lets nothing through any more, and the connection that it let through ends.
        """

@final
class SandboxPool:
    """
    A pool of warm sandboxes.
    """
    def claim(
        self,
        /,
        agent: str,
        workdir: str | PathLike[str],
        hidden: SupportsGetItem[int, str | PathLike[str]],
        home: str | PathLike[str],
        env: dict[str, str],
        secrets: dict[str, str],
        seconds: SupportsFloat | SupportsIndex,
        bridge: Bridge,
        token: SupportsIndex,
    ) -> None:
        """
        Completes with a claimed sandbox.
        """
    def close(self, /, bridge: Bridge, token: SupportsIndex) -> None:
        """
        Completes when all that waited has ended.
        """
    def facts(self, /) -> str:
        """
        What its sandboxes are made of, apart from the image's digest, as JSON.
        """
    def fill(self, /) -> dict[Any, Any]:
        """
        `{idle, starting, claimed}`.
        """
    def measure(self, /, bridge: Bridge, token: SupportsIndex) -> None:
        """
        Completes with the digest of the image's manifest.
        """
    @staticmethod
    def start(spec: str, bridge: Bridge, token: SupportsIndex) -> None:
        """
        Completes with a pool made from a JSON text.
        """
    def warm(
        self, /, count: SupportsIndex, seconds: SupportsFloat | SupportsIndex, bridge: Bridge, token: SupportsIndex
    ) -> None:
        """
        Completes when `count` sandboxes wait.
        """

@final
class Sealer:
    """
    Seals secrets at rest, under a key file of mode 0600 or a passphrase: AES-256-GCM, and Argon2id (RFC 9106) before it.

    Example:
        >>> from creto.crypto import Sealer
        >>> sealer = Sealer.ephemeral()
        >>> sealed = sealer.seal(b"token", "mail server")
        >>> sealer.open_sealed(sealed, "mail server")
        b'token'
        >>> sealer.open_sealed(sealed, "another purpose")
        Traceback (most recent call last):
        ...
        creto.errors.EncryptionFailedError: sealing or opening failed
    """
    def __repr__(self, /) -> str: ...
    @staticmethod
    def ephemeral() -> Sealer:
        """
        A sealer that lives in memory only.
        """
    @staticmethod
    def from_key(key: bytes) -> Sealer:
        """
        From a key of 32 bytes that is kept elsewhere, such as an operating system's keyring.
        """
    @staticmethod
    def open(folder: str | PathLike[str], passphrase: bytes | None = None) -> Sealer:
        """
        Opens the sealing key of a folder, or makes one.

        Args:
            folder: Where the key file is, or the salt of the passphrase; made with mode 0700.
            passphrase: Seals in place of a key file.

        Raises:
            InvalidInputError: Others may read the key file, or the passphrase is wrong or missing.
        """
    def open_sealed(self, /, sealed: bytes, label: str) -> bytes:
        """
        Unseals bytes that were sealed under the same label.
        """
    def seal(self, /, plain: bytes, label: str) -> bytes:
        """
        Seals bytes under a label.
        """

@final
class SigningKey:
    """
    The secret half of a signing key set, one key for each algorithm of its suite.

    A handle: the bytes stay in Rust, are in no `repr`, and are wiped with the last handle.

    Example:
        >>> from creto.crypto import SigningKey
        >>> key = SigningKey.generate("cnsa2")
        >>> [(algorithm, len(signature)) for algorithm, signature in key.sign(b"report")]
        [('ML-DSA-87', 4627)]
    """
    def __repr__(self, /) -> str: ...
    @staticmethod
    def generate(suite: str = "standard") -> SigningKey:
        """
        Makes fresh keys.

        Args:
            suite: `standard` (Ed25519 and ML-DSA-65) or `cnsa2` (ML-DSA-87).

        Raises:
            InvalidInputError: There is no such suite.
        """
    def seal(self, /, sealer: Sealer, label: str) -> bytes:
        """
        Seals the keys under a label, to be stored.
        """
    def sign(self, /, message: bytes) -> list[tuple[str, bytes]]:
        """
        Signs with every algorithm of the suite, in its order: (name, signature) pairs.
        """
    @property
    def suite(self, /) -> str:
        """
        `standard` or `cnsa2`.
        """
    @staticmethod
    def unseal(sealed: bytes, sealer: Sealer, label: str) -> SigningKey:
        """
        Unseals keys that were sealed under the same label.

        Args:
            sealed: What `seal` gave.
            sealer: By the same sealing key.
            label: What they were sealed for.

        Raises:
            EncryptionFailedError: Another sealing key, another label, or other bytes.
        """
    @property
    def verifying_key(self, /) -> VerifyingKey:
        """
        The public half.
        """

@final
class TrustDomain:
    """
    The public half of a trust domain.
    """
    def __repr__(self, /) -> str: ...
    def admit(self, /, statement: str) -> Identity:
        """
        Verifies a statement of this domain's authority and gives the identity that it vouches for.
        """
    def certificates(self, /) -> list[bytes]:
        """
        Its self-signed certificates in DER, one for each algorithm.
        """
    @staticmethod
    def from_parts(
        name: str, key: VerifyingKey, certificates: SupportsGetItem[int, SupportsGetItem[int, SupportsIndex]]
    ) -> TrustDomain:
        """
        From its name, keys and self-signed certificates, which must agree.
        """
    @property
    def name(self, /) -> str:
        """
        Its name.
        """
    @property
    def verifying_key(self, /) -> VerifyingKey:
        """
        What its statements verify under.
        """

@final
class UsageIndex:
    """
    The segments of a ledger's usage.
    """
    def __new__(cls, /, ledger: str | PathLike[str], folder: str | PathLike[str] | None = None) -> UsageIndex:
        """
        Of the ledger in a folder; its segments lie in another. Without one nothing is kept, and all is read from the ledger itself.
        """
    def advance(self, /, progress: Progress | None = None) -> int:
        """
        Makes segments of what checkpoints cover and no segment holds; returns how many events were put in order. `progress` counts records.
        """
    def stretches(self, /) -> list[tuple[str, int, int]]:
        """
        (shard, first record, record after the last) of every segment.
        """
    def totals(
        self,
        /,
        stretches: SupportsGetItem[int, tuple[str, SupportsIndex, SupportsIndex]],
        cuts: SupportsGetItem[int, SupportsIndex],
        *,
        customers: SupportsGetItem[int, str] | None = None,
        keep: SupportsGetItem[int, str] = ...,
        after: dict[str, SupportsIndex] | None = None,
        trace: tuple[str, str] | None = None,
        recount: bool = False,
        progress: Progress | None = None,
    ) -> UsageTotals:
        """
        Adds up what stretches hold, between the times `cuts` (microseconds, rising): n + 1 of them bound n intervals.

        `after`: by shard, from which record on events count; `keep`: meters whose aggregation needs each event; `trace`: the source and
        id of an event to be proved; `recount`: add every row up again, and hold what segments say against it; `progress` counts records.
        """

@final
class UsageIngest:
    """
    The way in for usage events of others: each once by its source and id. A source belongs to one process at a time.
    """
    def __new__(
        cls, /, ledger: Ledger, folder: str | PathLike[str], clock: HybridLogicalClock, since: SupportsIndex = 0
    ) -> UsageIngest:
        """
        Learns from the ledger in `folder` what was taken; events of a time before `since` (microseconds) are refused.
        """
    def check(
        self,
        /,
        series: SupportsGetItem[int, tuple[str, str, str, dict[Any, Any]]],
        which: Any,
        at: Any,
        quantity: Any,
        ids: list[Any],
    ) -> None:
        """
        Says whether events in columns, as for `take`, could be taken; takes none.
        """
    def close(self, /) -> None:
        """
        Gives its sources free for other processes.
        """
    def take(
        self,
        /,
        series: SupportsGetItem[int, tuple[str, str, str, dict[Any, Any]]],
        which: Any,
        at: Any,
        quantity: Any,
        ids: list[Any],
    ) -> tuple[int, int, int]:
        """
        Takes events in columns: the series that they are of (source, customer, meter, dimensions), the number of each one's series, times
        in microseconds, quantities, ids. Returns how many were taken, how many were there before, and the ledger's ticket to wait for.
        """

@final
class UsageTable:
    """
    Usage events in columns, each taken once by its source, id and meter.
    """
    def __len__(self, /) -> int: ...
    def __new__(cls, /) -> UsageTable: ...
    def add(
        self,
        /,
        source: str,
        id: str,
        meter: str,
        quantity: SupportsIndex,
        at: SupportsIndex,
        dimensions: dict[Any, Any],
    ) -> bool:
        """
        Takes an event; False where it was taken before.
        """
    def aggregate(
        self,
        /,
        meter: str,
        aggregation: str,
        start: SupportsIndex,
        end: SupportsIndex,
        *,
        of: str | None = None,
        window: str | None = None,
        time_zone: str = "UTC",
        by: SupportsGetItem[int, str] = ...,
        only: dict[Any, Any] | None = None,
    ) -> list[tuple[int, int, list[str], int, int, int]]:
        """
        (start, end, group, numerator, denominator, events) of every bucket that has events.
        """
    @property
    def duplicates(self, /) -> int:
        """
        How many events were offered again.
        """
    def has(self, /, source: str, id: str) -> bool:
        """
        True where an event of this source and id was taken.
        """
    def meters(self, /) -> list[str]:
        """
        The meters that events name, sorted.
        """
    def read(
        self,
        /,
        ledger: str | PathLike[str],
        shard: str,
        start: SupportsIndex,
        end: SupportsIndex,
        progress: Progress | None = None,
    ) -> None:
        """
        Takes all usage of a shard from `start` until before `end` (microseconds), each event once; also what no checkpoint covers yet.
        `progress` is counted up with the records that were read.
        """
    def select(
        self, /, meter: str, start: SupportsIndex, end: SupportsIndex, only: dict[Any, Any] | None = None
    ) -> list[int]:
        """
        The numbers, in the order in which they came, of the events from `start` until before `end` (microseconds) with these dimensions.
        """

@final
class UsageTotals:
    """
    What every series of events adds up to, in every interval, with commitments.
    """
    @property
    def duplicates(self, /) -> int:
        """
        How many events stood in a second place and were not counted.
        """
    def line(
        self, /, parts: SupportsGetItem[int, tuple[SupportsIndex, SupportsIndex]], aggregation: str, end: SupportsIndex
    ) -> tuple[int, int, int, str]:
        """
        Numerator, denominator, number of events and commitment of a line of these parts, whose time ends at `end` (microseconds).
        """
    @staticmethod
    def of(
        events: SupportsGetItem[int, Any],
        cuts: SupportsGetItem[int, SupportsIndex],
        *,
        keep: SupportsGetItem[int, str] = ...,
    ) -> UsageTotals:
        """
        Adds up events in memory: (source, id, customer, meter, quantity, at, dimensions, shard, record, position) each, in the order of their place.
        """
    def parts(self, /) -> list[tuple[int, int]]:
        """
        The number of the series and of the interval, wherever there are events.
        """
    def proof(
        self, /, parts: SupportsGetItem[int, tuple[SupportsIndex, SupportsIndex]]
    ) -> tuple[bytes, list[tuple[int, int, list[str]]]] | None:
        """
        The traced event's leaf, and its way (index, size, path) through three trees to a line's commitment; None where it is in no part.
        """
    def series(self, /) -> list[tuple[str, str, str, dict[Any, Any]]]:
        """
        Source, customer, meter and dimensions of every series that was met, by number.
        """

@final
class VerifiedEnvelope:
    """
    A message whose origin and addressing hold; its content is still sealed.
    """
    def header(self, /) -> dict[Any, Any]:
        """
        The header fields by name.
        """
    def open(self, /, keys: SupportsGetItem[int, KemKey]) -> bytes:
        """
        Opens the content with whichever of the recipient's keys it was sealed for.
        """

@final
class VerifyingKey:
    """
    The public half of a signing key set.

    Example:
        >>> from creto.crypto import SigningKey, VerifyingKey
        >>> key = SigningKey.generate()
        >>> public = VerifyingKey.from_text(key.verifying_key.to_text())
        >>> public == key.verifying_key, list(public.public())
        (True, ['Ed25519', 'ML-DSA-65'])
        >>> public.verify(b"another report", key.sign(b"report"))
        Traceback (most recent call last):
        ...
        creto.errors.SignatureVerificationFailedError: the signature is not valid
    """
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __ne__(self, value: object, /) -> bool: ...
    def __repr__(self, /) -> str: ...
    @property
    def fingerprint(self, /) -> str:
        """
        SHA-256 over the DER of the set, in hexadecimal.
        """
    @staticmethod
    def from_bytes(encoded: bytes) -> VerifyingKey:
        """
        Reads what `to_bytes` wrote.
        """
    @staticmethod
    def from_text(text: str) -> VerifyingKey:
        """
        Reads what `to_text` wrote.
        """
    def public(self, /) -> dict[Any, Any]:
        """
        The public keys by algorithm, each in its own encoding.
        """
    @property
    def suite(self, /) -> str:
        """
        `standard` or `cnsa2`.
        """
    def to_bytes(self, /) -> bytes:
        """
        DER: a SEQUENCE of one SubjectPublicKeyInfo for each algorithm.
        """
    def to_text(self, /) -> str:
        """
        The same in base64.
        """
    def verify(
        self, /, message: bytes, signatures: SupportsGetItem[int, tuple[str, SupportsGetItem[int, SupportsIndex]]]
    ) -> None:
        """
        Does nothing where every algorithm of the suite has signed, in its order, and nothing else has.

        Args:
            message: What was signed.
            signatures: (name of the algorithm, signature) pairs, as `SigningKey.sign` gives them.

        Raises:
            SignatureVerificationFailedError: One is missing, is too many, or does not verify.
        """

def _round_trip(exception: Exception) -> BaseException:
    """
    Raises the exception of a kind by way of Rust; the tests walk every kind through it.
    """

def attachment_check(key: bytes, piece: bytes, number: SupportsIndex, last: bool) -> None:
    """
    Raises EncryptionFailedError unless a piece is the chunk of this number: the sealed blob's 7 first bytes, then the chunk.
    """

def attachment_open(key: bytes, sealed: bytes) -> bytes:
    """
    Opens what `attachment_seal` sealed.
    """

def attachment_seal(data: bytes) -> tuple[bytes, bytes]:
    """
    Seals an attachment under a fresh key: (key, sealed). The key belongs inside a sealed message and nowhere else.
    """

def canonical_json(document: dict[Any, Any], without: str | None = None) -> bytes:
    """
    RFC 8785 JSON of a document that holds only texts, whole numbers, lists and objects; one of its own names can be left out.
    """

def check_quota_rules(rules: str) -> None:
    """
    Raises InvalidInputError where a JSON list of quota rules has no valid reading.
    """

def check_section(section: str, json: str) -> tuple[str, str] | None:
    """
    Reads a section of the configuration as the part that uses it does: what is wrong as `(setting, problem)`, or None.
    """

def consensus_timestamp() -> int:
    """
    A word later than every one that this process was given before; the folder's own once its clock is installed.

    Its upper 52 bits are microseconds since the Unix epoch, the lower 12 count within one (hybrid logical clock, Kulkarni et al., 2014).

    Example:
        >>> import creto
        >>> creto.consensus_timestamp() < creto.consensus_timestamp()
        True
    """

def crypto_providers() -> list[tuple[str, bool, str | None]]:
    """
    Each provider in this build with the result of its self-test: (name, chosen, problem or None).

    Example:
        >>> from creto.crypto import crypto_providers
        >>> [name for name, chosen, problem in crypto_providers() if problem is None]
        ['aws-lc', 'rustcrypto']
    """

def delegate(
    delegator: str,
    key: SigningKey,
    delegatee: Identity,
    *,
    attenuation: str,
    audience: str,
    issued_at: SupportsIndex,
    expiry: SupportsIndex,
    depth: SupportsIndex,
    previous: Chain | None = None,
) -> str:
    """
    Signs a hop: the delegator lets the delegatee act for it, within the attenuation (Cedar), at the audience, for some time.
    """

def delegation_names(hops: SupportsGetItem[int, str]) -> list[str]:
    """
    Every name in a chain that nobody has verified yet.
    """

def dsse_sign(key: SigningKey, payload_type: str, payload: bytes) -> str:
    """
    Signs a payload: a DSSE envelope as JSON text, one signature for each algorithm of the key's suite.

    Args:
        key: Who signs.
        payload_type: What the payload is: `IN_TOTO` for an in-toto Statement.
        payload: What is signed, with its type (DSSE's pre-authentication encoding, protocol 1.0.2).

    Example:
        >>> import json
        >>> from creto.crypto import IN_TOTO, SigningKey, dsse_sign
        >>> envelope = json.loads(dsse_sign(SigningKey.generate(), IN_TOTO, b"{}"))
        >>> envelope["payload"], len(envelope["signatures"])
        ('e30=', 2)
    """

def dsse_verify(key: VerifyingKey, payload_type: str, envelope: str) -> bytes:
    """
    Verifies a DSSE envelope under exactly these keys and returns its payload.

    Args:
        key: Who must have signed, with every algorithm of its suite.
        payload_type: What the payload must be.
        envelope: The JSON text.

    Raises:
        SignatureVerificationFailedError: It is not signed so.
        InvalidInputError: It is no DSSE envelope.

    Example:
        >>> from creto.crypto import IN_TOTO, SigningKey, dsse_sign, dsse_verify
        >>> key = SigningKey.generate()
        >>> dsse_verify(key.verifying_key, IN_TOTO, dsse_sign(key, IN_TOTO, b'{"built": true}'))
        b'{"built": true}'
    """

def envelope_header(envelope: bytes, suite: str) -> dict[Any, Any]:
    """
    What an envelope says of itself, verified by nobody: to show it, or to find out whose keys are needed.
    """

def envelope_seal(
    sender: str,
    key: SigningKey,
    to: SupportsGetItem[int, Identity],
    body: bytes,
    *,
    message_id: str,
    date: SupportsIndex,
    expires: SupportsIndex,
    content_type: str,
    priority: str = "normal",
    in_reply_to: str | None = None,
    chain: bytes | None = None,
) -> bytes:
    """
    Seals a message: encrypted for each recipient, signed by the sender's keys.
    """

def envelope_verify(
    envelope: bytes,
    *,
    me: str,
    directory: Directory,
    suite: str,
    max_bytes: SupportsIndex,
    max_life: SupportsIndex,
    now: SupportsIndex,
) -> VerifiedEnvelope:
    """
    Verifies a message: size, encoding, suite, signatures, writer, addressing and times; times in seconds since the epoch.
    """

def ledger_cosigned(note: str, witness: str) -> int | None:
    """
    When a witness cosigned a note, in seconds since the Unix epoch; None where it has not.
    """

def ledger_decode(entry: bytes, shard: str = "", index: SupportsIndex = 0) -> dict[Any, Any]:
    """
    The record that bytes of an entry are, as a dict.
    """

def ledger_shards(folder: str | PathLike[str]) -> list[str]:
    """
    The names of the shards of a ledger folder, in order.
    """

def ledger_term(value: Any) -> int:
    """
    The number that stands for a text or an id in the rows of an index.
    """

def ledger_verifier_keys(origin: str, key: VerifyingKey) -> list[str]:
    """
    The verifier keys, one for each algorithm, under which public clients check the checkpoints of `origin`.
    """

def ledger_verify_proof(proof: str, entry: bytes, key: VerifyingKey) -> dict[Any, Any]:
    """
    Checks a proof (C2SP tlog-proof text) of a record's bytes; returns the checkpoint as a dict.
    """

def ledger_while_vacant(folder: str | PathLike[str], name: str, work: Any) -> bool:
    """
    Calls `work` while this process holds a shard that nobody holds; False where somebody does, and nothing was called.
    """

def ledger_with_cosignature(note: str, answer: str, witness: str) -> str:
    """
    The note with a witness's cosignature from its answer; raises where that does not hold under the witness's verifier key.
    """

def merkle_hash_root(
    leaf: SupportsLenAndGetItem[SupportsIndex],
    index: SupportsIndex,
    size: SupportsIndex,
    path: SupportsGetItem[int, SupportsLenAndGetItem[SupportsIndex]],
) -> bytes | None:
    """
    The root that a leaf's hash and its path lead to; None where the path does not fit the place.
    """

def merkle_leaf(leaf: bytes) -> bytes:
    """
    The hash of a leaf (RFC 9162, SHA-256).
    """

def merkle_path(leaves: SupportsGetItem[int, bytes], index: SupportsIndex) -> list[bytes]:
    """
    The hashes that lead from one of the leaves to the root.
    """

def merkle_root(leaves: SupportsGetItem[int, bytes]) -> bytes:
    """
    The root of a Merkle tree over leaves (RFC 9162, SHA-256).
    """

def oversight_after(state: str, event: str) -> str:
    """
    The state of an oversight request after an event; refused where that may not follow.
    """

def oversight_answer(
    key: SigningKey,
    act: Act,
    *,
    request: str,
    policy: str,
    nonce: bytes,
    expiry_us: SupportsIndex,
    approver: str,
    approved: bool,
    reason: str,
    decided_us: SupportsIndex,
) -> str:
    """
    Signs an approver's answer about an act and returns the DSSE envelope.
    """

def oversight_is_final(state: str) -> bool:
    """
    True where nothing can happen to a request in this state any more.
    """

def policy_compare(
    old: str, new: str, schema: str, command: SupportsGetItem[int, str], limit: SupportsIndex = 60000
) -> dict[Any, Any]:
    """
    What `new` in place of `old` newly allows, asks and denies, proved by the solver that `command` starts; `limit` is in milliseconds a question.
    """

def policy_examine(
    policies: str, schema: str, command: SupportsGetItem[int, str], limit: SupportsIndex = 60000
) -> list[dict[Any, Any]]:
    """
    What is proved about single policies: those that never apply, those that never matter beside another, forbids that can err.
    """

def policy_findings(policies: str, schema: str | None = None, entities: str | None = None) -> list[dict[Any, Any]]:
    """
    What is wrong with a policy set, errors first, and what may not mean what it says; nothing is installed.
    """

def policy_prove(
    policies: str,
    schema: str,
    assertions: SupportsGetItem[int, tuple[str, str, SupportsGetItem[int, str]]],
    command: SupportsGetItem[int, str],
    limit: SupportsIndex = 60000,
) -> list[dict[Any, Any]]:
    """
    Proves assertions, each a name, the requests that it speaks of, and the answers ("allow", "ask", "deny") that none of them may get.
    """

def quota_fork_begins() -> None:
    """
    To be called before a fork: waits until no thread counts, and lets none begin.
    """

def quota_fork_over() -> None:
    """
    To be called after a fork, in the parent.
    """

def quota_fork_over_in_child() -> None:
    """
    To be called after a fork, in the child, which has only one thread.
    """

def usage_events(
    ledger: str | PathLike[str], shard: str, start: SupportsIndex = 0, end: SupportsIndex | None = None
) -> list[tuple[str, str, str, str, int, int, dict[Any, Any], str, int, int]]:
    """
    The usage events that the records of a shard hold, from `start` until before `end`, or until what is on disk ends.
    """

def usage_leaf(
    source: str, id: str, customer: str, meter: str, quantity: SupportsIndex, at: SupportsIndex, own: dict[Any, Any]
) -> bytes:
    """
    The bytes that commitments are made of: RFC 8785 JSON of an event.
    """

def usage_leaves(entry: bytes) -> list[bytes]:
    """
    The leaves of what the act used whose outcome an entry of the ledger is.
    """

def usage_window(window: str, at: SupportsIndex, time_zone: str = "UTC") -> tuple[int, int]:
    """
    The window of a span (`90s`, `day`, `month`, ...) that holds a time: (start, end) in microseconds since the epoch.
    """

__all__ = [
    "BACKENDS",
    "IN_TOTO",
    "NO_UNITS_LEASED",
    "OVERSIGHT_EVENTS",
    "OVERSIGHT_STATES",
    "SUITES",
    "Act",
    "ActPrice",
    "Authority",
    "Bridge",
    "Chain",
    "ChainCache",
    "Decision",
    "Directory",
    "Gate",
    "Grant",
    "HybridLogicalClock",
    "Identity",
    "KemKey",
    "Ledger",
    "LedgerFollower",
    "LedgerShard",
    "LedgerSubjects",
    "LedgerWitness",
    "Permit",
    "PolicyEngine",
    "Prepared",
    "PreparedQuota",
    "Principal",
    "Progress",
    "QuotaBatch",
    "QuotaEnforcer",
    "Reservation",
    "Roster",
    "SandboxLease",
    "SandboxPool",
    "Sealer",
    "SigningKey",
    "TrustDomain",
    "UsageIndex",
    "UsageIngest",
    "UsageTable",
    "UsageTotals",
    "VerifiedEnvelope",
    "VerifyingKey",
    "__version__",
    "_round_trip",
    "attachment_check",
    "attachment_open",
    "attachment_seal",
    "canonical_json",
    "check_quota_rules",
    "check_section",
    "consensus_timestamp",
    "crypto_providers",
    "delegate",
    "delegation_names",
    "dsse_sign",
    "dsse_verify",
    "envelope_header",
    "envelope_seal",
    "envelope_verify",
    "ledger_cosigned",
    "ledger_decode",
    "ledger_shards",
    "ledger_term",
    "ledger_verifier_keys",
    "ledger_verify_proof",
    "ledger_while_vacant",
    "ledger_with_cosignature",
    "merkle_hash_root",
    "merkle_leaf",
    "merkle_path",
    "merkle_root",
    "oversight_after",
    "oversight_answer",
    "oversight_is_final",
    "policy_compare",
    "policy_examine",
    "policy_findings",
    "policy_prove",
    "quota_fork_begins",
    "quota_fork_over",
    "quota_fork_over_in_child",
    "usage_events",
    "usage_leaf",
    "usage_leaves",
    "usage_window",
]
BACKENDS: list[str]
IN_TOTO: str
NO_UNITS_LEASED: str
OVERSIGHT_EVENTS: tuple[str, ...]
OVERSIGHT_STATES: tuple[str, ...]
SUITES: tuple[str, ...]
__version__: str
