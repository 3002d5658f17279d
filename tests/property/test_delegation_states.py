"""Delegation chains against a model that signs nothing: whatever hops are signed, by whom and in which order shown."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from creto import _core
from creto.errors import CretoError

NOW = 1_790_000_000
AUDIENCES = ("creto.test", "elsewhere.test")
agents = st.integers(0, 4)
# First hops mostly hold; later ones are a step within or beyond what the hop before them allows, so that chains grow
# and either answer is common.
depths = st.sampled_from([3, 4, 5, 15, 16])
lives = st.sampled_from([-1, 0, 5, 6, 7])
steps = st.sampled_from([-1, -1, -1, 0, 1])
audiences = st.sampled_from([AUDIENCES[0]] * 4 + [AUDIENCES[1]])


@dataclass(frozen=True)
class Hop:
    """What a hop says, and its signed text; two that say the same are two hops."""

    text: str
    delegator: int
    delegatee: int
    previous: str | None
    audience: str
    depth: int
    expiry: int

    @property
    def digest(self) -> str:
        return hashlib.sha256(base64.b64decode(json.loads(self.text)["payload"])).hexdigest()


def holds(hops: list[Hop], audience: str) -> bool:
    """The rules of a chain, said once more and apart from the code."""
    links: list[int] = []
    expiry, depth = NOW + 10**9, 16
    for place, hop in enumerate(hops):
        before = hops[place - 1] if place else None
        if place == 0:
            links.append(hop.delegator)
        follows = hop.previous is None if before is None else hop.previous == before.digest
        received = before is None or before.delegatee == hop.delegator
        narrower = hop.depth < depth and hop.expiry <= expiry
        if not (follows and received and narrower) or hop.audience != audience or hop.expiry <= NOW:
            return False
        if hop.delegatee in links:
            return False
        links.append(hop.delegatee)
        expiry, depth = hop.expiry, hop.depth
    return bool(hops)


class Delegations(RuleBasedStateMachine):
    """Everybody signs what they like with keys of their own; nobody signs with another's."""

    @initialize()
    def found(self) -> None:
        authority = _core.Authority.generate("creto.test", "standard", NOW, 100_000)
        self.directory = _core.Directory()
        self.keys: list[_core.SigningKey] = []
        self.identities: list[_core.Identity] = []
        for number in range(5):
            key = _core.SigningKey.generate()
            id = f"spiffe://creto.test/agent/a{number}"
            statement = authority.issue(id, key.verifying_key, _core.KemKey.generate().public(), NOW, 50_000)
            self.identities.append(authority.domain.admit(statement))
            self.directory.add(self.identities[-1])
            self.keys.append(key)
        self.cache = _core.ChainCache()
        self.hops: list[Hop] = []
        self.chains: list[list[Hop]] = []

    def verify(self, hops: list[Hop], audience: str = AUDIENCES[0]) -> _core.Chain | None:
        """Verifies by the code and by the model, which must agree."""
        try:
            chain = self.cache.verify([hop.text for hop in hops], self.directory, audience, NOW, 1)
        except CretoError:
            assert not holds(hops, audience), hops
            return None
        assert holds(hops, audience), hops
        assert chain.links == [self.identities[n].id for n in [hops[0].delegator, *(hop.delegatee for hop in hops)]]
        assert (chain.depth, chain.expiry) == (hops[-1].depth, hops[-1].expiry)
        return chain

    def sign(self, signer: int, hop: Hop) -> Hop:
        """A statement signed without any of the checks that our own code makes before it signs."""
        payload = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [
                {
                    "name": self.identities[hop.delegatee].id,
                    "digest": {"sha256": self.identities[hop.delegatee].verifying_key.fingerprint},
                }
            ],
            "predicateType": "urn:creto:delegation:1",
            "predicate": {
                "delegator": self.identities[hop.delegator].id,
                "suite": "standard",
                "previous": hop.previous,
                "audience": hop.audience,
                "attenuation": "permit(principal, action, resource);",
                "depth": hop.depth,
                "issuedAt": NOW,
                "expiry": hop.expiry,
                "nonce": os.urandom(16).hex(),
            },
        }
        text = _core.dsse_sign(self.keys[signer], _core.IN_TOTO, json.dumps(payload).encode())
        return Hop(text, hop.delegator, hop.delegatee, hop.previous, hop.audience, hop.depth, hop.expiry)

    @rule(delegator=agents, delegatee=agents, depth=depths, life=lives, audience=audiences)
    def start(self, delegator: int, delegatee: int, depth: int, life: int, audience: str) -> None:
        hop = self.sign(delegator, Hop("", delegator, delegatee, None, audience, depth, NOW + life))
        self.hops.append(hop)
        if self.verify([hop]) is not None:
            self.chains.append([hop])

    @rule(data=st.data(), delegatee=agents, deeper=steps, longer=steps, audience=audiences)
    def extend(self, data: st.DataObject, delegatee: int, deeper: int, longer: int, audience: str) -> None:
        """The last of a chain passes on, by our code and, where that refuses, by a forgery of its own."""
        if not self.chains:
            return
        chain = data.draw(st.sampled_from(self.chains))
        last = chain[-1]
        verified = self.verify(chain)
        depth, life = max(last.depth + deeper, 0), last.expiry - NOW + longer
        wanted = Hop("", last.delegatee, delegatee, last.digest, audience, depth, NOW + life)
        forged = self.sign(last.delegatee, wanted)
        self.hops.append(forged)
        allowed = self.verify([*chain, forged]) is not None
        if allowed:
            self.chains.append([*chain, forged])
        if audience != AUDIENCES[0]:
            return
        try:
            _core.delegate(
                self.identities[last.delegatee].id,
                self.keys[last.delegatee],
                self.identities[delegatee],
                attenuation="permit(principal, action, resource);",
                audience=audience,
                issued_at=NOW,
                expiry=NOW + life,
                depth=depth,
                previous=verified,
            )
        except CretoError:
            assert not allowed
        else:
            assert allowed

    @rule(data=st.data(), thief=agents, delegatee=agents)
    def forge_in_anothers_name(self, data: st.DataObject, thief: int, delegatee: int) -> None:
        if not self.chains:
            return
        chain = data.draw(st.sampled_from(self.chains))
        last = chain[-1]
        if thief == last.delegatee:
            return
        hop = self.sign(thief, Hop("", last.delegatee, delegatee, last.digest, AUDIENCES[0], 0, last.expiry))
        try:
            self.cache.verify([each.text for each in [*chain, hop]], self.directory, AUDIENCES[0], NOW, 1)
        except CretoError:
            return
        raise AssertionError("a hop that another signed was believed")

    @rule(data=st.data())
    def show_another_audience(self, data: st.DataObject) -> None:
        if self.chains:
            self.verify(data.draw(st.sampled_from(self.chains)), AUDIENCES[1])

    @rule(data=st.data())
    def splice_cut_reorder_and_repeat(self, data: st.DataObject) -> None:
        """Any hops that were ever signed, in any order; and the head of one chain before the tail of another."""
        if self.hops:
            self.verify(data.draw(st.lists(st.sampled_from(self.hops), min_size=1, max_size=4)))
        if self.chains:
            one, other = data.draw(st.sampled_from(self.chains)), data.draw(st.sampled_from(self.chains))
            self.verify([*one[: data.draw(st.integers(0, 3))], *other[data.draw(st.integers(0, 3)) :]])
            self.verify(data.draw(st.permutations(one)))


Delegations.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, suppress_health_check=list(HealthCheck)
)
TestDelegations = Delegations.TestCase
