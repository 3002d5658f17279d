"""While the authority of a shared quota cannot be asked: what is leased is spent, then nothing more, and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import creto
from creto import _core
from creto.errors import ConnectionFailedError, QuotaExceededError
from creto.metering import Leases, QuotaEnforcer, StoreAuthority
from creto.metering._usage import shard_records
from creto.store import Store

PATH = ("acme", "research", "spiffe://acme.test/agent/reader")
LIMIT = 640
LEASE = LIMIT // 32
RULES = [{"scope": "team", "meter": "m", "limit": LIMIT, "share": "store"}]


class Line:
    """The line to an authority, which can be cut."""

    def __init__(self, authority: Any) -> None:
        self.cut = False
        self._authority = authority

    def __getattr__(self, name: str) -> Any:
        if self.cut:
            raise ConnectionFailedError("the store does not answer")
        return getattr(self._authority, name)


def test_what_is_leased_is_spent_then_nothing_more_until_the_authority_answers_again(tmp_path: Path) -> None:
    quota = QuotaEnforcer(RULES)
    with Store(tmp_path) as store:
        line = Line(StoreAuthority(store))
        with Leases(quota, line) as leases:
            ended: list[type] = []

            def spend() -> int:
                for spent in range(LIMIT + 1):
                    try:
                        leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
                    except (ConnectionFailedError, QuotaExceededError) as error:
                        ended.append(type(error))
                        return spent
                raise AssertionError("more than there is")

            leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
            line.cut = True
            assert spend() == LEASE - 1
            assert spend() == 0
            assert isinstance(leases.failure, ConnectionFailedError)
            line.cut = False
            assert spend() == LIMIT - LEASE
            assert leases.failure is None
            assert ended == [ConnectionFailedError, ConnectionFailedError, QuotaExceededError]


def test_what_is_let_go_of_during_an_outage_goes_back_afterwards_and_once(tmp_path: Path) -> None:
    idle, other = QuotaEnforcer(RULES), QuotaEnforcer(RULES)
    with Store(tmp_path) as store:
        line = Line(StoreAuthority(store))
        with Leases(idle, line) as leases, Leases(other, StoreAuthority(store)) as others:
            leases.supply(lambda: idle.consume_nowait(PATH, {"m": 1}))
            leases.tick()  # from now on it counts as idle
            line.cut = True
            for _ in range(2):
                with pytest.raises(ConnectionFailedError):
                    leases.tick()
            line.cut = False
            # What it takes up again it does not give back.
            leases.supply(lambda: idle.consume_nowait(PATH, {"m": 1}))
            for _ in range(3):
                leases.tick()
            for _ in range(LIMIT - 2):
                others.supply(lambda: other.consume_nowait(PATH, {"m": 1}))
            with pytest.raises(QuotaExceededError):
                others.supply(lambda: other.consume_nowait(PATH, {"m": 1}))


def test_units_let_go_of_during_an_outage_are_others_once_it_is_over(tmp_path: Path) -> None:
    idle, other = QuotaEnforcer(RULES), QuotaEnforcer(RULES)
    with Store(tmp_path) as store:
        line = Line(StoreAuthority(store))
        with Leases(idle, line) as leases, Leases(other, StoreAuthority(store)) as others:
            leases.supply(lambda: idle.consume_nowait(PATH, {"m": 1}))
            leases.tick()
            line.cut = True
            with pytest.raises(ConnectionFailedError):
                leases.tick()
            line.cut = False
            leases.tick()
            for _ in range(LIMIT - 1):
                others.supply(lambda: other.consume_nowait(PATH, {"m": 1}))


def test_an_outage_that_is_allowed_for_counts_what_goes_beyond(tmp_path: Path) -> None:
    quota = QuotaEnforcer(RULES)
    with Store(tmp_path) as store:
        line = Line(StoreAuthority(store))
        with Leases(quota, line, on_outage="allow") as leases:
            leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
            line.cut = True
            for _ in range(3 * LEASE):
                leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
            assert 2 * LEASE < leases.beyond + 1 <= 4 * LEASE
            line.cut = False


def records(state: Path) -> list[dict[str, Any]]:
    ledger = state / "ledger"
    return [one for shard in _core.ledger_shards(str(ledger)) for one in shard_records(ledger, shard)]


def test_acts_refused_for_want_of_units_are_recorded_and_were_not_started(tmp_path: Path) -> None:
    config = tmp_path / "house.toml"
    config.write_text(f'[[quotas]]\nscope = "organisation"\nmeter = "calls"\nlimit = {LIMIT}\nwindow = "day"\n')
    started: list[int] = []
    with creto.open_blocking(config=[config]) as layer:
        agent = layer.agent("worker")

        def act() -> None:
            layer.perform_blocking(agent, "tool:call", "add", lambda: started.append(1), usage={"calls": 1})

        act()
        line = Line(layer.parts.quota.leases.authority)
        layer.parts.quota.leases.authority = line
        line.cut = True
        for _ in range(LEASE - 1):
            act()
        for _ in range(3):
            with pytest.raises(ConnectionFailedError, match="the store does not answer"):
                act()
        line.cut = False
        act()
        assert len(started) == LEASE + 1
    refused = [one for one in records(tmp_path / "state") if one["kind"] == "refusal"]
    assert [(one["what"], one["usage"], one["why"]) for one in refused] == [
        ("tool:call", {"calls": 1}, "the store does not answer")
    ] * 3
