"""What one message of NATS carries: many sealed envelopes, or many receipts, each with the agent whose it is.

The client's own cost for a message is far above that of the bytes in it. A parcel vouches for nothing: what is in it
is verified piece by piece, as if each had come alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from creto.errors import InvalidInputError

__all__ = ["OVERHEAD", "pack", "unpack"]

_SIZES = struct.Struct(">HI")  # of the agent's id, in bytes, and of the data
_LONGEST = 2048  # bytes of an id
OVERHEAD = _SIZES.size + _LONGEST  # that an id adds to its data, at most
_MOST = 512  # in one parcel: nobody is to be kept busy with a million empty ones


def pack(items: Iterable[tuple[str, bytes]], limit: int) -> Iterator[bytes]:
    """Packs (id, data) into parcels of at most `limit` bytes; what is larger by itself has a parcel of its own."""
    parcel = bytearray()
    packed = 0
    for id, data in items:
        name = id.encode()
        size = _SIZES.size + len(name) + len(data)
        if parcel and (len(parcel) + size > limit or packed == _MOST):
            yield bytes(parcel)
            parcel.clear()
            packed = 0
        packed += 1
        parcel += _SIZES.pack(len(name), len(data))
        parcel += name
        parcel += data
    if parcel:
        yield bytes(parcel)


def unpack(parcel: bytes) -> list[tuple[str, bytes]]:
    """The (id, data) in a parcel, whoever packed it.

    Raises:
        InvalidInputError: It is not one, to its last byte.
    """
    items: list[tuple[str, bytes]] = []
    at = 0
    try:
        while at < len(parcel):
            if len(items) == _MOST:
                raise ValueError("too many")
            name, data = _SIZES.unpack_from(parcel, at)
            at += _SIZES.size
            if at + name + data > len(parcel):
                raise ValueError("cut short")
            items.append((_id(parcel[at : at + name]), parcel[at + name : at + name + data]))
            at += name + data
    except (struct.error, ValueError) as error:
        raise InvalidInputError("a parcel of messages that cannot be read") from error
    return items


def _id(name: bytes) -> str:
    # Whether there is such an agent is the store's to say; it is only asked for what could be the id of one.
    if len(name) > _LONGEST or not (id := name.decode("ascii")).isprintable():
        raise ValueError("not the id of an agent")
    return id
