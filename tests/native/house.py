"""The parts that acts go through, on a state folder of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from creto import _core
from creto.audit import open_ledger
from creto.authz import starter_schema
from creto.metering import QuotaEnforcer
from creto.store import open_folder

LIMIT = 5000


@dataclass(frozen=True)
class House:
    """Clock, ledger, policy, quota and gate of one process."""

    folder: Path
    clock: _core.HybridLogicalClock
    ledger: _core.Ledger
    gate: _core.Gate

    def principal(self, name: str = "worker") -> _core.Principal:
        agent = f"spiffe://creto.local/agent/{name}"
        return self.gate.principal(agent, ["acme", "lab", agent], [])

    def act(self, principal: _core.Principal, number: int = 0) -> int:
        """One whole act: let in, intent, done; returns the ticket of its last record."""
        permit = self.gate.enter(principal, "tool:call", "count", {"number": number}, {"tool_calls": 1}, None)
        permit.intent()
        return permit.settle(None, None)


def build(folder: Path) -> House:
    """Opens a house; also by the tests' child processes."""
    open_folder(folder)
    clock = _core.HybridLogicalClock(str(folder / "clock"))
    ledger = open_ledger(folder, clock, _core.Sealer.open(str(folder / "keys")))
    engine = _core.PolicyEngine()
    engine.install('permit (principal, action == Action::"tool:call", resource);', starter_schema(), "[]")
    rule = {"scope": "team:lab", "meter": "tool_calls", "limit": LIMIT, "window": "1h", "share": "process"}
    return House(folder, clock, ledger, _core.Gate(engine, QuotaEnforcer([rule]), ledger, clock))
