"""Attachments: the sealed blob lies apart in the store, its key and digest travel inside the envelope."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from sqlalchemy import select, update

from creto import _core
from creto._foreign import json_value
from creto.errors import IntegrityError, InvalidInputError, NotFoundError
from creto.store.tables import attachments

if TYPE_CHECKING:
    from creto.store import Store, Transaction

__all__ = ["LARGEST", "MANIFEST", "Attachment", "Blob", "keep", "pack", "unpack"]

MANIFEST = "application/vnd.creto.manifest+json"
LARGEST = 64 * 1024 * 1024
"""Bytes of one attachment."""
_MOST = 256 * 1024 * 1024  # of one message: what it can have its recipient keep
_NAME = 200
_DIGEST, _KEY = 64, 32


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with a message.

    Args:
        name: As its sender named it; never a path to write to without looking.
        length: Bytes of its content.
        digest: SHA-512 of the sealed blob.

    Example:
        >>> import anyio, tempfile
        >>> from creto.messaging import Mailbox
        >>> from creto.nhi import Identities
        >>> from creto.store import Store
        >>> async def main() -> bytes:
        ...     with Store(tempfile.mkdtemp()) as store:
        ...         mailbox = Mailbox(store, identities := Identities(store))
        ...         writer, reader = identities.agent("writer"), identities.agent("reader")
        ...         await mailbox.send(writer, "reader", "as agreed", attach={"plan.txt": b"first this"})
        ...         message = await anext(mailbox.inbox(reader))
        ...         return await message.attachments["plan.txt"].read()
        >>> anyio.run(main)
        b'first this'
    """

    name: str
    length: int
    digest: bytes = field(repr=False)
    _key: bytes = field(repr=False)
    _store: Store = field(repr=False, compare=False)

    async def read(self) -> bytes:
        """The content, whole and verified.

        Raises:
            NotFoundError: It has expired.
            IntegrityError: The blob is not the one that the message names.
        """
        return await anyio.to_thread.run_sync(self.read_blocking)

    def read_blocking(self) -> bytes:
        """`read`, in this thread."""
        with self._store.read() as tx:
            blob = tx.scalar(select(attachments.c.blob).where(attachments.c.digest == self.digest))
        if blob is None:
            raise NotFoundError(f"the attachment `{self.name}` is no longer in the store; it expired with its message")
        if hashlib.sha512(blob).digest() != self.digest:
            raise IntegrityError(f"the attachment `{self.name}` is not what its message says")
        content = _core.attachment_open(self._key, bytes(blob))
        if len(content) != self.length:
            raise IntegrityError(f"the attachment `{self.name}` is not as long as its message says")
        return content


@dataclass(frozen=True, slots=True)
class Blob:
    """A sealed attachment on its way into the store."""

    digest: bytes
    sealed: bytes = field(repr=False)


def pack(body: bytes, content_type: str, attach: Mapping[str, bytes]) -> tuple[bytes, list[Blob]]:
    """The manifest that is sent in place of the body, and the blobs beside it.

    Raises:
        InvalidInputError: An attachment, or all together, is too large, or has no usable name.
    """
    total = sum(map(len, attach.values()))
    if total > _MOST:
        raise InvalidInputError(f"the attachments have {total} bytes together, and {_MOST} are the limit")
    blobs: list[Blob] = []
    listed = []
    for name, content in attach.items():
        if not _can_name(name):
            raise InvalidInputError(
                f"`{name}` cannot name an attachment: 1 to {_NAME} printable characters without `/`"
            )
        if len(content) > LARGEST:
            raise InvalidInputError(f"the attachment `{name}` has {len(content)} bytes, and {LARGEST} are the limit")
        key, sealed = _core.attachment_seal(content)
        digest = hashlib.sha512(sealed).digest()
        blobs.append(Blob(digest, sealed))
        listed.append({"name": name, "length": len(content), "sha512": digest.hex(), "key": _text(key)})
    manifest = {"body": _text(body), "content_type": content_type, "attachments": listed}
    return json.dumps(manifest).encode(), blobs


def unpack(manifest: bytes, store: Store) -> tuple[bytes, str, dict[str, Attachment]]:
    """Body, media type and attachments of a manifest.

    Raises:
        InvalidInputError: It is not one; its sender signed it all the same.
    """
    try:
        read = json_value(manifest)
        listed = [_listed(one, store) for one in read["attachments"]]
        found = {one.name: one for one in listed}
        if len(found) < len(listed) or sum(one.length for one in listed) > _MOST:
            raise ValueError("more than any sender of ours would attach")
        content_type = read["content_type"]
        if not isinstance(content_type, str) or not content_type.isprintable():
            raise ValueError("a content type that is none")
        return _bytes(read["body"]), content_type, found
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            "the message says that it has attachments, and its list of them cannot be read"
        ) from error


def _listed(one: Any, store: Store) -> Attachment:
    name, length, digest, key = one["name"], one["length"], bytes.fromhex(one["sha512"]), _bytes(one["key"])
    possible = isinstance(name, str) and _can_name(name) and type(length) is int and 0 <= length <= LARGEST
    if not possible or len(digest) != _DIGEST or len(key) != _KEY:
        raise ValueError("not as any sender of ours would list it")
    return Attachment(name, length, digest, key, store)


def _can_name(name: str) -> bool:
    return 0 < len(name) <= _NAME and "/" not in name and name.isprintable()


def keep(tx: Transaction, blobs: list[Blob], expires: int) -> None:
    """Puts blobs into the store, until the message that names them expires."""
    for blob in blobs:
        if not tx.insert_once(attachments, digest=blob.digest, blob=blob.sealed, expires=expires):
            tx.execute(
                update(attachments)
                .where(attachments.c.digest == blob.digest, attachments.c.expires < expires)
                .values(expires=expires)
            )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)
