"""Attachments over JetStream: their sender puts the pieces there, and the recipient takes what its message names.

Pieces have a subject each, so what a broken connection or a killed process left undone is done by the next try, and
not all of it anew: the sender asks which pieces the server has, and the recipient keeps each piece that it has checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from creto.errors import ConnectionFailedError, EncryptionFailedError, IntegrityError
from creto.messaging import _pieces
from creto.messaging._asking import asking
from creto.messaging._attachment import LARGEST

if TYPE_CHECKING:
    from creto.messaging._attachment import Attachment
    from creto.store import Store

__all__ = ["Blobs"]

_STREAM = "CRETO-BLOBS"
_AT_ONCE = 16
_MOST = _pieces.count(LARGEST)
_SECONDS = 5


class Blobs:
    """The attachments of one connection.

    Args:
        store: Where they are, or shall be.
        stream: The client's JetStream.
    """

    def __init__(self, store: Store, stream: Any) -> None:
        self._store = store
        self._stream = stream

    async def open(self) -> None:
        """Makes the stream, unless it is there."""
        from nats.js.errors import BadRequestError

        with suppress(BadRequestError):
            await self._stream.add_stream(
                name=_STREAM,
                subjects=["creto.blob.>"],
                max_age=24 * 3600,
                max_msgs_per_subject=1,
                allow_direct=True,
            )

    async def upload(self, domain: str, digests: Sequence[bytes]) -> None:
        """Puts what the server does not have of these blobs where the machines of a trust domain find it.

        Args:
            domain: The subject's token for the trust domain.
            digests: SHA-512 of each sealed blob.

        Raises:
            ConnectionFailedError: The server could not be reached, or did not take a piece.
            NotFoundError: One is not in the store.
            IntegrityError: One is not what it was.
        """
        for digest in digests:
            blob = await self._store.fetch(_pieces.sealed, digest)
            there = await self._numbers(domain, digest)
            missing = [(n, piece) for n, piece in enumerate(_pieces.cut(blob)) if n not in there]
            for start in range(0, len(missing), _AT_ONCE):
                async with anyio.create_task_group() as tasks:
                    for number, piece in missing[start : start + _AT_ONCE]:
                        tasks.start_soon(self._put, f"{_subject(domain, digest)}.{number}", piece)

    async def _put(self, subject: str, piece: bytes) -> None:
        with asking():
            await self._stream.publish(subject, piece, timeout=_SECONDS)

    async def _numbers(self, domain: str, digest: bytes) -> set[int]:
        with asking():
            found = await self._stream.stream_info(_STREAM, subjects_filter=f"{_subject(domain, digest)}.*")
            return {int(subject.rpartition(".")[2]) for subject in found.state.subjects or {}}

    async def download(self, domain: str, attachment: Attachment, expires: int) -> None:
        """Takes an attachment into the store, each piece checked before it is kept, the whole before it counts.

        Args:
            domain: The subject's token for the trust domain of the recipient.
            attachment: As a message that was verified and opened names it.
            expires: Until when it is kept, in seconds since the epoch.

        Raises:
            ConnectionFailedError: The server could not be reached, or does not have it.
            EncryptionFailedError: A piece is not what the message says; whoever writes to the server can change one.
            IntegrityError: The whole is not; likewise.
            InvalidInputError: It is the blob that the message names, so what the message says of it is untrue.
        """
        here = await self._store.fetch(_pieces.kept, attachment.digest)
        missing = [number for number in range(_pieces.count(attachment.length)) if number not in here]
        for start in range(0, len(missing), _AT_ONCE):
            numbers = missing[start : start + _AT_ONCE]
            try:
                found = await self._fetched(domain, attachment.digest, numbers)
            except ConnectionFailedError:
                await self._require_true(domain, attachment)
                raise
            for number, piece in found.items():
                try:
                    _pieces.check(attachment, number, piece)
                except EncryptionFailedError:
                    await self._require_true(domain, attachment)
                    # Out of the way, so that its sender finds it missing and puts it there anew.
                    await self._purge(f"{_subject(domain, attachment.digest)}.{number}")
                    raise
            await self._store.run(_pieces.add, attachment.digest, found, expires)
        try:
            await self._store.run(_pieces.assemble, attachment, expires)
        except IntegrityError:
            # Each piece is under the message's key and the whole is not its blob. All of them go, so that the sender
            # puts them there anew: somebody else who has the key may have changed one.
            await self._store.run(_pieces.drop, attachment.digest)
            await self._purge(f"{_subject(domain, attachment.digest)}.*")
            raise

    async def _fetched(self, domain: str, digest: bytes, numbers: Sequence[int]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        lost: list[ConnectionFailedError] = []

        async def take(number: int) -> None:
            try:
                with asking():
                    subject = f"{_subject(domain, digest)}.{number}"
                    message = await self._stream.get_last_msg(_STREAM, subject, direct=True)
                    found[number] = bytes(message.data or b"")
            except ConnectionFailedError as error:
                lost.append(error)

        async with anyio.create_task_group() as tasks:
            for number in numbers:
                tasks.start_soon(take, number)
        if lost:
            raise lost[0]
        return {number: found[number] for number in numbers}

    async def _require_true(self, domain: str, attachment: Attachment) -> None:
        """Does nothing unless the server has the very blob that the message names, and the message says it wrongly."""
        numbers = sorted(await self._numbers(domain, attachment.digest))
        if not numbers or len(numbers) > _MOST or numbers != list(range(len(numbers))):
            return  # Not whole: whoever lost or changed it, this tells nothing about the message.
        whole, wrong = hashlib.sha512(), len(numbers) != _pieces.count(attachment.length)
        for start in range(0, len(numbers), _AT_ONCE):
            found = await self._fetched(domain, attachment.digest, numbers[start : start + _AT_ONCE])
            for number, piece in found.items():
                whole.update(_pieces.behind(number, piece))
                try:
                    _pieces.check(attachment, number, piece)
                except EncryptionFailedError:
                    wrong = True
        if wrong and whole.digest() == attachment.digest:
            raise _pieces.untrue(attachment)

    async def forget(self, domain: str, digests: Sequence[bytes]) -> None:
        """Takes blobs off the server, once their recipient has them."""
        for digest in digests:
            await self._purge(f"{_subject(domain, digest)}.*")

    async def _purge(self, subject: str) -> None:
        with asking():
            await self._stream.purge_stream(_STREAM, subject=subject)


def _subject(domain: str, digest: bytes) -> str:
    return f"creto.blob.{domain}.{digest.hex()[:64]}"
