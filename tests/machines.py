"""Two machines that write to each other: a store, a trust domain and an agent each."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
from sqlalchemy import select

from creto import _core
from creto.messaging import Mailbox, Message, _nats
from creto.nhi import Identities
from creto.store import Store

__all__ = ["Machine", "acquainted"]


class Machine:
    """A store, a trust domain and one agent."""

    def __init__(self, store: Store, name: str, suite: str = "standard") -> None:
        self.store = store
        self.identities = Identities(store, trust_domain=f"{name}.test", suite=suite)
        self.mailbox = Mailbox(store, self.identities, remote=True)
        self.agent = self.identities.agent(name)
        self.token = _nats._token(f"{name}.test")

    def knows(self, other: Machine) -> None:
        fingerprint = other.identities.domain().verifying_key.fingerprint
        self.identities.import_blocking(other.identities.export(), fingerprint=fingerprint)

    def rows(self, table: Any) -> list[Any]:
        with self.store.read() as tx:
            return tx.all(select(table))

    def seal(self, to: Machine, body: bytes, content_type: str) -> bytes:
        """An envelope by a sender who does not use our mailbox."""
        now = int(time.time())
        return _core.envelope_seal(
            self.agent.id,
            self.agent.signing_key,
            [self.identities.find(to.agent.id)],
            body,
            message_id=hashlib.sha256(body).hexdigest()[:32],
            date=now,
            expires=now + 600,
            content_type=content_type,
        )

    async def first(self, seconds: float = 60) -> Message:
        async with self.mailbox.inbox(self.agent) as inbox:
            with anyio.fail_after(seconds):
                message = await inbox.__anext__()
                await message.ack()
                return message


@contextmanager
def acquainted(folder: Path, suite: str = "standard") -> Iterator[tuple[Machine, Machine]]:
    """Two of them, each of which knows the other."""
    with ExitStack() as stack:
        here, there = (Machine(stack.enter_context(Store(folder / name)), name, suite) for name in ("here", "there"))
        here.knows(there)
        there.knows(here)
        yield here, there
