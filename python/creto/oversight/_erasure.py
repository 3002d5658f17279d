"""What past oversight requests say about a person, taken out of them; the digests that were agreed to stay."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import select, update

from creto import _core
from creto.store import Transaction
from creto.store.tables import oversight_requests as requests

__all__ = ["erase_mentions"]


def erase_mentions(tx: Transaction, subject: str, pseudonym: str) -> tuple[list[str], int]:
    """Empties every ended request in which a person is named.

    A request that is still open stays as it is: what is asked, and is perhaps being done, has to be what was agreed to.

    Args:
        tx: The transaction.
        subject: The name, however it is written, upper or lower case.
        pseudonym: What is put in its place.

    Returns:
        The ids of the requests that were emptied, and how many open ones name the person.
    """
    columns = (requests.c.id, requests.c.state, requests.c.core, requests.c.preview, requests.c.resource)
    name, emptied, still_open = subject.casefold(), [], 0
    for row in tx.all(select(*columns, requests.c.reason, requests.c.cost)):
        document: dict[str, Any] = json.loads(row.core)
        if not any(_names(part, name) for part in (document, row.preview, row.resource, row.reason, row.cost)):
            continue
        if not _core.oversight_is_final(row.state):
            still_open += 1
            continue
        document["context"] = {"erased": pseudonym}
        if _names(document["resource"], name):
            document["resource"] = pseudonym
        core = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        values: dict[str, Any] = {"core": core, "resource": document["resource"], "preview": None}
        values |= {column: "erased" for column in ("reason", "cost") if _names(getattr(row, column), name)}
        tx.execute(update(requests).where(requests.c.id == row.id).values(values))
        emptied.append(row.id)
    return emptied, still_open


def _names(value: Any, name: str) -> bool:
    match value:
        case str():
            return name in value.casefold()
        case dict():
            return any(_names(one, name) for pair in value.items() for one in pair)
        case list():
            return any(_names(one, name) for one in value)
        case _:
            return False
