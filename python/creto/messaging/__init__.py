"""Sealed messages between agents: encrypted for their recipients, signed by their sender, delivered once.

Example:
    >>> import anyio, tempfile
    >>> from creto.messaging import Mailbox
    >>> from creto.nhi import Identities
    >>> from creto.store import Store
    >>> async def main() -> bytes:
    ...     with Store(tempfile.mkdtemp()) as store:
    ...         identities = Identities(store)
    ...         mailbox = Mailbox(store, identities)
    ...         writer, reader = identities.agent("writer"), identities.agent("reader")
    ...         await mailbox.send(writer, "reader", b"the report is done")
    ...         async for message in mailbox.inbox(reader):
    ...             await message.ack()
    ...             return message.body
    >>> anyio.run(main)
    b'the report is done'
"""

from typing import TYPE_CHECKING

from creto._lazy import lazily

if TYPE_CHECKING:
    from creto.messaging._attachment import Attachment as Attachment
    from creto.messaging._inbox import Inbox as Inbox
    from creto.messaging._mailbox import Mailbox as Mailbox
    from creto.messaging._message import Message as Message
    from creto.messaging._message import Sent as Sent
    from creto.messaging._receipt import Receipt as Receipt

_HOMES = {
    "Attachment": "creto.messaging._attachment",
    "Inbox": "creto.messaging._inbox",
    "Mailbox": "creto.messaging._mailbox",
    "Message": "creto.messaging._message",
    "Receipt": "creto.messaging._receipt",
    "Sent": "creto.messaging._message",
}

__all__ = ["Attachment", "Inbox", "Mailbox", "Message", "Receipt", "Sent"]

__getattr__, __dir__ = lazily(__name__, _HOMES)
