"""What becomes of messages that were sent: told where this process hears of it, else asked of the store."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio
from sqlalchemy import select

from creto.errors import DeliveryDeniedError, TimeoutError
from creto.messaging import _outgoing, _rows
from creto.messaging._news import News
from creto.store.tables import agents

if TYPE_CHECKING:
    from sqlalchemy import Row

    from creto.messaging._message import Sent
    from creto.messaging._receipt import Receipt
    from creto.store import Store, Transaction

__all__ = ["Fates", "known_of"]

_POLL = 0.25  # seconds between looks at what became of a message
_NET = 1.0  # the same where reach brings the word of other processes: the net below it


class Fates:
    """What became of the messages of one mailbox.

    Args:
        store: Where they were filed.
        hears: Whether the word of other processes comes by itself.
    """

    def __init__(self, store: Store, hears: bool) -> None:
        self._store = store
        self._hears = hears
        self._news: weakref.WeakValueDictionary[str, News] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    async def state(self, sender: str, message_id: str, to: Sequence[str]) -> dict[str, str]:
        """What became of a message, by recipient."""
        rows = await self._store.fetch(_states, sender, message_id, to)
        states = dict.fromkeys(to, "expired")
        states.update({row.recipient: row.state for row in rows})
        return states

    def tell(self, message_id: str | None) -> None:
        """Wakes whoever waits for this message, or for any: there is something to see in the store."""
        with self._lock:
            if message_id is None:
                heard = list(self._news.values())
            else:
                news = self._news.get(message_id)
                heard = [] if news is None else [news]
        for each in heard:
            each.tell()

    def answered(self, receipt: Receipt) -> None:
        """Hands a receipt that was verified, and is committed, to whoever waits for it in this process."""
        news = self._news.get(receipt.message_id)
        if news is not None:
            # A refusal is an error for whoever waits, made where the store's other refusals are.
            news.tell(receipt)

    def expect(self, message_id: str) -> News:
        """Where what is heard of a message is kept, from before it is filed and for as long as its sender asks."""
        news = News()
        with self._lock:
            self._news[message_id] = news
        return news

    async def receipts(self, sent: Sent, limit: float) -> list[Receipt]:
        """The verified receipts of all recipients of a message.

        Raises:
            TimeoutError: One has not come within so many seconds.
            DeliveryDeniedError: A recipient refused it.
        """
        news = sent._news
        # With reach, what became of it since it was filed has been told; without, only the store knows.
        asks = not self._hears or news.changed
        with news.awaited() as told, anyio.move_on_after(limit):
            while True:
                if all(recipient in news.receipts for recipient in sent.to):
                    return [news.receipts[recipient] for recipient in sent.to]
                if asks and (receipts := await self._receipts_of(sent)):
                    return receipts
                with anyio.move_on_after(_NET if self._hears else _POLL):
                    await told.wait()
                asks = True
        states = await self.state(sent.sender, sent.id, sent.to)
        raise TimeoutError(
            f"message `{sent.id}` was not acknowledged within {limit:g} s; it is "
            + ", ".join(f"{state} at `{recipient}`" for recipient, state in states.items())
        )

    async def _receipts_of(self, sent: Sent) -> list[Receipt]:
        """The receipts of all recipients, verified, as the store has them; nothing while one is missing."""
        rows = await self._store.fetch(_states, sent.sender, sent.id, sent.to)
        for row in rows:
            if row.state in {"denied", "refused"}:
                raise DeliveryDeniedError(f"message `{sent.id}` was {row.state} at `{row.recipient}`: {row.reason}")
        if len(rows) < len(sent.to) or not all(row.receipt for row in rows):
            return []
        return [sent._verified(row.receipt, row.recipient) for row in rows]


def known_of(store: Store, message_id: str) -> list[tuple[str, str, str, str | None]]:
    """Sender, recipient, state and reason of a message that an agent of this store sent, for each recipient."""
    with store.read() as tx:
        return [
            (sender, row.recipient, row.state, row.reason)
            for (sender,) in tx.all(select(agents.c.id).where(agents.c.own.is_(True)).order_by(agents.c.id))
            for row in _states(tx, sender, message_id)
        ]


def _states(tx: Transaction, sender: str, message_id: str, to: Sequence[str] = ()) -> list[Row[Any]]:
    """What became of a message: one row for each recipient. Mostly all are on one side; the other is not asked then."""
    domain = sender.rsplit("/agent/", 1)[0] + "/"
    looks = [_rows.state, _outgoing.state]
    rows: list[Row[Any]] = []
    for look in looks if any(id.startswith(domain) for id in to) else reversed(looks):
        rows += look(tx, sender, message_id)
        if to and len(rows) == len(to):
            break
    return rows
