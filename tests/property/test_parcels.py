"""Parcels of messages: what was packed comes out in its order, and nothing that was not packed is read at all."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from creto.errors import InvalidInputError
from creto.messaging import _parcel

IDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
ITEMS = st.lists(st.tuples(IDS, st.binary(max_size=300)), max_size=40)


@given(items=ITEMS, limit=st.integers(1, 2000))
def test_what_is_packed_comes_out_in_order_and_in_parcels_that_fit(items: list[tuple[str, bytes]], limit: int) -> None:
    parcels = list(_parcel.pack(items, limit))
    out = [_parcel.unpack(parcel) for parcel in parcels]
    assert [item for part in out for item in part] == items
    assert all(len(parcel) <= limit or len(part) == 1 for parcel, part in zip(parcels, out, strict=True))


@settings(max_examples=300)
@given(items=ITEMS, data=st.data())
def test_a_parcel_that_was_cut_or_made_up_is_refused_or_read_to_its_last_byte(
    items: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    parcel = b"".join(_parcel.pack(items, 1 << 20))
    parcel = parcel[: data.draw(st.integers(0, len(parcel)))] + data.draw(st.binary(max_size=20))
    with suppress(InvalidInputError):
        assert b"".join(_parcel.pack(_parcel.unpack(parcel), 1 << 20)) == parcel


def test_a_parcel_of_a_million_empty_messages_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        _parcel.unpack(bytes(6) * 174_762)
    [first, second] = _parcel.pack([("", b"")] * 513, 1 << 20)
    assert (len(_parcel.unpack(first)), len(_parcel.unpack(second))) == (512, 1)


@given(name=st.binary(max_size=3000))
def test_a_name_that_cannot_be_an_agents_is_refused_with_its_parcel(name: bytes) -> None:
    parcel = len(name).to_bytes(2, "big") + bytes(4) + name
    possible = len(name) <= 2048 and all(0x20 <= byte < 0x7F for byte in name)
    try:
        assert _parcel.unpack(parcel) == [(name.decode("ascii"), b"")]
    except InvalidInputError:
        assert not possible
    else:
        assert possible
