"""The outbox against a model: commits, crashes, full ledgers, take-overs in any order; each decision exactly once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from creto.errors import LedgerFullError
from creto.store import Store, tables
from file_ledger import FileLedger

SHARDS = st.sampled_from(["0", "1"])


class Outbox(RuleBasedStateMachine):
    """Processes come and go; what they committed must end in exactly one shard, once."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="creto-model-"))
        self.decided: list[str] = []
        self.expected: list[str] = []
        self.ledger: FileLedger | None = None
        self.store = Store(self.folder / "state")

    @rule(shard=SHARDS)
    def take_a_shard(self, shard: str) -> None:
        self.ledger = FileLedger(self.folder, shard)
        self.store.attach(self.ledger)

    @rule(count=st.integers(0, 3))
    def commit(self, count: int) -> None:
        name = f"row {len(self.decided)}"
        full = self.ledger is not None and self.ledger.full
        try:
            with self.store.begin() as tx:
                tx.insert(tables.meta, name=name, value="")
                for number in range(count):
                    tx.outbox({"what": "model:do", "resource": f"{name}/{number}"})
        except LedgerFullError:
            assert full
            # Refused at the beginning, or committed and not yet in the ledger; the store knows which.
        with self.store.read() as tx:
            there = tx.scalar(select(tables.meta.c.name).where(tables.meta.c.name == name))
        if there:
            self.decided.append(name)
            self.expected += [f"{name}/{number}" for number in range(count)]

    @rule()
    def roll_back(self) -> None:
        if self.ledger is not None and self.ledger.full:
            return
        try:
            with self.store.begin() as tx:
                tx.outbox({"what": "model:undo", "resource": "never"})
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass

    @rule(full=st.booleans())
    def fill_the_ledger(self, full: bool) -> None:
        if self.ledger is not None:
            self.ledger.full = full

    @rule()
    def crash(self) -> None:
        """The process is gone between any two lines: nothing is closed, nothing said."""
        self.store._engine.dispose()
        self.store._closed = True
        self.ledger = None
        self.store = Store(self.folder / "state")

    @rule()
    def close(self) -> None:
        self.store.close()
        self.ledger = None
        self.store = Store(self.folder / "state")

    @invariant()
    def nothing_is_recorded_that_was_not_decided_and_nothing_twice(self) -> None:
        seen = [record["resource"] for shard in ("0", "1") for record in FileLedger(self.folder, shard).records()]
        assert len(seen) == len(set(seen))
        assert set(seen) <= set(self.expected)

    def teardown(self) -> None:
        try:
            for shard in ("0", "1"):
                self.store.attach(FileLedger(self.folder, shard))
            seen = [record["resource"] for shard in ("0", "1") for record in FileLedger(self.folder, shard).records()]
            assert sorted(seen) == sorted(self.expected)
            self.store.close()
        finally:
            shutil.rmtree(self.folder)


def test_whatever_happens_each_decision_reaches_the_ledger_exactly_once() -> None:
    run_state_machine_as_test(
        Outbox,
        settings=settings(max_examples=25, stateful_step_count=20),
    )
