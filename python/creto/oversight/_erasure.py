"""What past oversight requests say about a person, taken out of them; the digests that were agreed to stay."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator
from typing import Any

from sqlalchemy import select, update

from creto import _core
from creto.store import Transaction
from creto.store.tables import oversight_requests as requests

__all__ = ["erase_mentions", "mentioned"]

_WORD = re.compile(r"[^\s,;:'\"<>()\[\]{}|]+")
_TEXTS = (requests.c.core, requests.c.preview, requests.c.resource, requests.c.reason, requests.c.cost)


def erase_mentions(tx: Transaction, subject: str, pseudonym: str) -> tuple[list[str], int]:
    """Empties every ended request in which a person is named.

    A request that is still open stays as it is: what is asked, and is perhaps being done, has to be what was agreed to.

    Args:
        tx: The transaction.
        subject: The name, however it is written: upper or lower case, letters with their accents or as two characters.
        pseudonym: What is put in its place.

    Returns:
        The ids of the requests that were emptied, and how many open ones name the person.
    """
    name, emptied, still_open = _alike(subject), [], 0
    for row in tx.all(select(requests.c.id, requests.c.state, *_TEXTS)):
        document: dict[str, Any] = json.loads(row.core)
        if not any(_names(part, name) for part in (document, row.preview, row.resource, row.reason, row.cost)):
            continue
        if not _core.oversight_is_final(row.state):
            still_open += 1
            continue
        document["context"] = {"erased": pseudonym}
        if _names(document["resource"], name):
            document["resource"] = pseudonym
        values: dict[str, Any] = {
            "core": _core.canonical_json(document),
            "resource": document["resource"],
            "preview": None,
        }
        values |= {column: "erased" for column in ("reason", "cost") if _names(getattr(row, column), name)}
        tx.execute(update(requests).where(requests.c.id == row.id).values(values))
        emptied.append(row.id)
    return emptied, still_open


def mentioned(tx: Transaction, pseudonym: Callable[[str], str], among: Collection[str]) -> dict[str, str]:
    """Whose names stand in requests, of people that are known by pseudonym only: a pseudonym says of any name whether
    it is the one.

    Args:
        tx: The transaction.
        pseudonym: Of a name.
        among: The pseudonyms that are looked for.

    Returns:
        Pseudonyms by name: of every text in a request that is one as a whole, or a word of which is.
    """
    names: set[str] = set()
    for row in tx.all(select(*_TEXTS)):
        for text in _texts([json.loads(row.core), row.preview, row.resource, row.reason, row.cost]):
            for form in {text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)}:
                names.add(form)
                names.update(word.rstrip(".") for word in _WORD.findall(form))
    return {name: found for name in names if (found := pseudonym(name)) in among}


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, one in value.items():
                yield name
                yield from _texts(one)
        case list():
            for one in value:
                yield from _texts(one)


def _names(value: Any, name: str) -> bool:
    return any(name in _alike(text) for text in _texts(value))


def _alike(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
