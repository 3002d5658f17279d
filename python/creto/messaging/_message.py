"""A message as its recipient holds it, and as its sender remembers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from creto.errors import TimeoutError
from creto.messaging import _receipt, _rows
from creto.messaging._record import record

if TYPE_CHECKING:
    from creto.messaging._attachment import Attachment
    from creto.messaging._mailbox import Mailbox
    from creto.messaging._news import News
    from creto.messaging._receipt import Receipt
    from creto.nhi import Agent
    from creto.store import Transaction

__all__ = ["Message", "Sent"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was verified and opened.

    Args:
        id: 32 hexadecimal digits.
        sender: Who signed it; its SPIFFE id.
        recipient: Whose mailbox it came from.
        to: Every recipient.
        body: The content.
        content_type: Its media type.
        attachments: Files that came with it, by name.
        date: When it was written, in seconds since the epoch.
        expires: When it stops to count, in seconds since the epoch.
        in_reply_to: The id of the message that it answers.
        priority: `non-urgent`, `normal` or `urgent`.
        chain: Digest of the delegation chain that its sender acts under, in hexadecimal.
        redelivered: It was handed out before, and not acknowledged; its effects may be there already.

    Example:
        >>> import anyio, tempfile
        >>> from creto.messaging import Mailbox
        >>> from creto.nhi import Identities
        >>> from creto.store import Store
        >>> async def main() -> tuple[str, str, bool]:
        ...     with Store(tempfile.mkdtemp()) as store:
        ...         mailbox = Mailbox(store, identities := Identities(store))
        ...         writer, reader = identities.agent("writer"), identities.agent("reader")
        ...         await mailbox.send(writer, "reader", "the report is done")
        ...         message = await anext(mailbox.inbox(reader))
        ...         await message.ack()
        ...         return message.sender, message.text, message.redelivered
        >>> anyio.run(main)
        ('spiffe://creto.local/agent/writer', 'the report is done', False)
    """

    id: str
    sender: str
    recipient: str
    to: tuple[str, ...]
    body: bytes = field(repr=False)
    content_type: str
    attachments: Mapping[str, Attachment]
    date: int
    expires: int
    in_reply_to: str | None
    priority: str
    chain: str | None
    redelivered: bool
    _mailbox: Mailbox = field(repr=False, compare=False)
    _agent: Agent = field(repr=False, compare=False)
    _held: _rows.Held | None = field(repr=False, compare=False)
    _envelope: bytes = field(repr=False, compare=False)

    @property
    def text(self) -> str:
        """The body as UTF-8.

        Raises:
            UnicodeDecodeError: It is not text.
        """
        return self.body.decode()

    async def ack(self, commit: Callable[[Transaction], T] | None = None) -> T | None:
        """Ends the message: it is not delivered again, and its sender can have the signed receipt.

        Args:
            commit: What the handler wants to store; called in the same transaction, in a worker thread, so that its
                effects and the acknowledgement count together or not at all.

        Returns:
            What `commit` returned.

        Raises:
            TimeoutError: It was ended already, or held for too long and handed out again; nothing was committed.

        Example:
            >>> import anyio, tempfile
            >>> from creto.messaging import Mailbox
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> async def main():
            ...     with Store(tempfile.mkdtemp()) as store:
            ...         mailbox = Mailbox(store, identities := Identities(store))
            ...         writer, reader = identities.agent("writer"), identities.agent("reader")
            ...         await mailbox.send(writer, "reader", "count me")
            ...         message = await anext(mailbox.inbox(reader))
            ...         return await message.ack(lambda tx: tx.number("messages"))  # both, or neither
            >>> anyio.run(main)
            1
        """
        held = self._held
        if held is None:
            return None
        receipt = self._mailbox._receipt(self, held)

        def write(tx: Transaction) -> T | None:
            self._end(tx, held, receipt)
            return commit(tx) if commit is not None else None

        result = await self._mailbox._store.run(write)
        self._mailbox._woken(f"{_rows.RECEIPT}{self.id}")
        return result

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """`ack` for code that runs in a worker thread: what is done inside, and the acknowledgement, count together.

        Raises:
            TimeoutError: It was ended already, or held for too long and handed out again; nothing was committed.
        """
        held = self._held
        receipt = self._mailbox._receipt(self, held) if held is not None else None
        with self._mailbox._store.begin() as tx:
            yield tx
            if held is not None:
                self._end(tx, held, receipt)
        self._mailbox._woken(f"{_rows.RECEIPT}{self.id}")

    def _end(self, tx: Transaction, held: _rows.Held, receipt: str | None) -> None:
        if not _rows.end(tx, held, "acked", receipt=receipt):
            raise TimeoutError(
                f"message `{self.id}` from `{self.sender}` was ended already, or held for too long and handed out "
                "again; nothing was committed here"
            )
        tx.publish(_rows.TOPIC, f"{_rows.RECEIPT}{self.id}")
        tx.outbox(record(self.recipient, "message:receive", self.sender, self.id, self._envelope, "success"))

    async def release(self) -> None:
        """Gives the message back unanswered; it comes again, marked as redelivered.

        Example:
            >>> import anyio, tempfile
            >>> from creto.messaging import Mailbox
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> async def main():
            ...     with Store(tempfile.mkdtemp()) as store:
            ...         mailbox = Mailbox(store, identities := Identities(store))
            ...         writer, reader = identities.agent("writer"), identities.agent("reader")
            ...         await mailbox.send(writer, "reader", "not now")
            ...         inbox = mailbox.inbox(reader)
            ...         await (await anext(inbox)).release()
            ...         return (await anext(inbox)).redelivered
            >>> anyio.run(main)
            True
        """
        held = self._held
        if held is not None:
            await self._mailbox._store.run(_rows.give_back, held)

    async def reply(self, body: bytes | str, **options: Any) -> Sent:
        """Answers the sender; options as for `Mailbox.send`.

        Example:
            >>> import anyio, tempfile
            >>> from creto.messaging import Mailbox
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> async def main():
            ...     with Store(tempfile.mkdtemp()) as store:
            ...         mailbox = Mailbox(store, identities := Identities(store))
            ...         writer, reader = identities.agent("writer"), identities.agent("reader")
            ...         asked = await mailbox.send(writer, "reader", "is it done?")
            ...         await (await anext(mailbox.inbox(reader))).reply("it is")
            ...         return (await anext(mailbox.inbox(writer))).in_reply_to == asked.id
            >>> anyio.run(main)
            True
        """
        return await self._mailbox.send(self._agent, self.sender, body, in_reply_to=self.id, **options)


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that is on its way.

    Args:
        id: 32 hexadecimal digits.
        sender: Who wrote it.
        to: Every recipient.
        expires: When it stops to count, in seconds since the epoch.
        size: Bytes of the envelope.

    Example:
        >>> import anyio, tempfile
        >>> from creto.messaging import Mailbox
        >>> from creto.nhi import Identities
        >>> from creto.store import Store
        >>> async def main() -> dict[str, str]:
        ...     with Store(tempfile.mkdtemp()) as store:
        ...         mailbox = Mailbox(store, identities := Identities(store))
        ...         writer, reader = identities.agent("writer"), identities.agent("reader")
        ...         sent = await mailbox.send(writer, "reader", "the report is done")
        ...         return await sent.state()
        >>> anyio.run(main)
        {'spiffe://creto.local/agent/reader': 'waiting'}
    """

    id: str
    sender: str
    to: tuple[str, ...]
    expires: int
    size: int
    _mailbox: Mailbox = field(repr=False, compare=False)
    _digest: str = field(repr=False, compare=False)
    _news: News = field(repr=False, compare=False)

    async def state(self) -> dict[str, str]:
        """What became of it, by recipient: `waiting`, `taken`, `received` (by another
        machine), `acked`, `refused`, `denied` or `expired`."""
        return await self._mailbox.state(self.sender, self.id, self.to)

    async def receipts(self, timeout: float | None = None) -> list[Receipt]:
        """Waits until every recipient has acknowledged it, and verifies the receipts.

        Of a recipient on another machine the receipt says `received`: it is in the mailbox there.

        Args:
            timeout: Seconds; the mailbox's `delivery_timeout` where none is given.

        Raises:
            TimeoutError: One has not; the text gives the message id and its true state.
            DeliveryDeniedError: A recipient's policy refused it.
        """
        return await self._mailbox._fates.receipts(self, self._mailbox._timeout if timeout is None else timeout)

    def _verified(self, statement: str, recipient: str) -> Receipt:
        return _receipt.verify(self._mailbox._identities, statement, recipient, self._digest)
