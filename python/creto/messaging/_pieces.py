"""A sealed attachment piece by piece: how it crosses between machines, and how it is kept until it is whole.

A piece is one chunk of the blob behind the blob's nonce prefix, so that each is held against the key in the message
before anything of it is kept: whoever can write to the transport cannot fill the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import delete, select, update

from creto import _core
from creto.errors import IntegrityError, InvalidInputError, NotFoundError
from creto.store.tables import attachment_pieces, attachments

if TYPE_CHECKING:
    from creto.messaging._attachment import Attachment
    from creto.store import Transaction

__all__ = [
    "PIECE",
    "add",
    "assemble",
    "behind",
    "check",
    "count",
    "cut",
    "drop",
    "kept",
    "prolong",
    "sealed",
    "untrue",
    "whole",
]

_PREFIX = 7
_TEXT = 64 * 1024
_TAG = 16
_CHUNK = _TEXT + _TAG
PIECE = _PREFIX + _CHUNK
"""Bytes of the largest piece."""
_ASKED_FOR = 500  # digests in one question: databases bound what a statement may hold


def count(length: int) -> int:
    """How many pieces content of so many bytes has."""
    return max(1, -(-length // _TEXT))


def cut(blob: bytes) -> list[bytes]:
    """The pieces of a sealed blob."""
    prefix = blob[:_PREFIX]
    return [prefix + blob[at : at + _CHUNK] for at in range(_PREFIX, len(blob), _CHUNK)]


def check(attachment: Attachment, number: int, piece: bytes) -> None:
    """Does nothing where this is that piece of the attachment.

    Raises:
        EncryptionFailedError: It is another, or was changed.
    """
    _core.attachment_check(attachment._key, piece, number, number + 1 == count(attachment.length))


def sealed(tx: Transaction, digest: bytes) -> bytes:
    """The whole sealed blob.

    Raises:
        NotFoundError: It is not in this store.
        IntegrityError: It is there, and not what it was.
    """
    blob = tx.scalar(select(attachments.c.blob).where(attachments.c.digest == digest))
    if blob is None:
        raise NotFoundError("an attachment of the message is no longer in its sender's store")
    if hashlib.sha512(blob).digest() != digest:
        raise IntegrityError("an attachment of the message was changed in its sender's store")
    return bytes(blob)


def whole(tx: Transaction, digests: Sequence[bytes]) -> set[bytes]:
    """Which of these blobs are here, to their last byte."""
    found: set[bytes] = set()
    for asked in _portions(digests):
        rows = tx.all(select(attachments.c.digest).where(attachments.c.digest.in_(asked)))
        found.update(bytes(digest) for (digest,) in rows)
    return found


def prolong(tx: Transaction, digests: Sequence[bytes], expires: int) -> None:
    """Keeps blobs until then, or for as long as they would have been kept."""
    for asked in _portions(digests):
        tx.execute(
            update(attachments)
            .where(attachments.c.digest.in_(asked), attachments.c.expires < expires)
            .values(expires=expires)
        )


def kept(tx: Transaction, digest: bytes) -> set[int]:
    """The numbers of the pieces that are here already."""
    rows = tx.all(select(attachment_pieces.c.number).where(attachment_pieces.c.digest == digest))
    return {number for (number,) in rows}


def add(tx: Transaction, digest: bytes, pieces: Mapping[int, bytes], expires: int) -> None:
    """Keeps pieces that were checked."""
    tx.insert_all_once(
        attachment_pieces,
        [{"digest": digest, "number": n, "piece": piece, "expires": expires} for n, piece in pieces.items()],
    )


def assemble(tx: Transaction, attachment: Attachment, expires: int) -> None:
    """Puts the pieces together.

    Raises:
        IntegrityError: Together they are not what the message names: whoever put them there knows the key.
        InvalidInputError: They are, and are not as long as it says.
    """
    mine = attachment_pieces.c.digest == attachment.digest
    rows = tx.all(select(attachment_pieces.c.piece).where(mine).order_by(attachment_pieces.c.number))
    blob = _joined(bytes(piece) for (piece,) in rows)
    if hashlib.sha512(blob).digest() != attachment.digest:
        raise IntegrityError(f"the attachment `{attachment.name}` is not what its message says")
    if len(blob) != _PREFIX + attachment.length + _TAG * count(attachment.length):
        raise untrue(attachment)
    tx.insert_once(attachments, digest=attachment.digest, blob=blob, expires=expires)
    tx.execute(delete(attachment_pieces).where(mine))


def untrue(attachment: Attachment) -> InvalidInputError:
    """The error for a message that names a blob and says its key or its length wrongly."""
    return InvalidInputError(
        f"the attachment `{attachment.name}` is there as its sender put it, and does not open as its message says: the "
        "key or the length in it is wrong"
    )


def drop(tx: Transaction, digest: bytes) -> None:
    """Forgets the pieces of a blob that is not whole."""
    tx.execute(delete(attachment_pieces).where(attachment_pieces.c.digest == digest))


def _portions(digests: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(digests), _ASKED_FOR):
        yield digests[start : start + _ASKED_FOR]


def behind(place: int, piece: bytes) -> bytes:
    """What a piece adds to a blob: all of it at the beginning, its chunk after that."""
    return piece[_PREFIX:] if place else piece


def _joined(pieces: Iterable[bytes]) -> bytes:
    blob = bytearray()
    for piece in pieces:
        blob += behind(len(blob), piece)
    return bytes(blob)
