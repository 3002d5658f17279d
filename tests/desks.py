"""A desk on a state folder with approvers, as the oversight tests use it; and the same in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from creto import _core, config
from creto.oversight import Approver, Desk, Request, open_desk
from creto.reach import Reach
from creto.store import Store

T = TypeVar("T")

AGENT = "spiffe://creto.local/agent/assistant"
BOSS = "spiffe://creto.local/agent/boss"


class Office:
    """A store, a reach and a desk, with the approver `ann` (every policy) and her inbox token."""

    def __init__(self, place: Path | str, *, folder: Path | None = None, **options: Any) -> None:
        self.store = Store(place)
        self.reach = Reach(self.store, folder)
        sealer = _core.Sealer.open(str((folder or self.store.folder or Path(place)) / "keys"))
        self.desk: Desk = open_desk(
            self.store, config.load(state=folder or self.store.folder), self.reach, sealer=sealer
        )
        for name, value in options.items():
            setattr(self.desk, name, value)
        self.token = ""
        if not self.desk.approvers.all():
            _, self.token = self.desk.approvers.add("ann")

    @property
    def ann(self) -> Approver:
        return self.desk.approvers.named("ann")

    def close(self) -> None:
        self.desk.close()
        self.reach.close()
        self.store.close()


def act(
    amount: int = 5, *, to: str = "DE89", agent: str = AGENT, chain: tuple[str, ...] = (), suite: str = "standard"
) -> _core.Act:
    """Sending money: the act that most tests ask about."""
    context = {"to": to, "amount": amount}
    return _core.Act(
        agent, "tool:call", "send_money", chain=list(chain), context=context, usage={"tool_calls": 1}, suite=suite
    )


def wait_for_request(desk: Desk, count: int = 1, seconds: float = 60) -> list[Request]:
    """The requests that wait, once there are `count`."""
    return wait_until(lambda: found if len(found := desk.pending()) >= count else None, seconds)


def wait_until(ready: Callable[[], T | None], seconds: float = 60) -> T:
    """What `ready` gives, once it gives something."""
    deadline = time.monotonic() + seconds
    while (value := ready()) is None:
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


# Code for further processes; `office` is open there, and `ACT` is the act above.
PRELUDE = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import anyio, os, signal
from pathlib import Path
from desks import Office, act
office = Office(Path(os.environ["CRETO_STATE"]))
desk = office.desk
"""
