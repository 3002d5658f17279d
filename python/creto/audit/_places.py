"""How a filter becomes queries of the index: what narrows most is looked up, the rest is tried on what that gives."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from creto import _core
from creto.audit._filter import Filter

__all__ = ["SIGN", "Lead", "Place", "leads", "statement"]

SIGN = 1 << 63
_FEW_TEXTS = 256
_KIND = {"intent": 0, "outcome": 1, "refusal": 2, "event": 3}
_ENDED = {"success": 1, "failure": 2, "refused": 3}


class Place(NamedTuple):
    """Where a record lies, in the order of records, and the number of its id."""

    time: int
    shard: int
    at: int
    id: int


class Lead(NamedTuple):
    """A column that is looked up, and the number looked for in it."""

    column: str
    number: int


def leads(connection: sqlite3.Connection, wanted: Filter) -> list[Lead | None]:
    """What narrows most, and is looked up, in place of going through time: one column's value, or the few that a `*`
    stands for, each of which is in order of time by itself."""
    if wanted.id is not None:
        return [None]
    if wanted.act is not None:
        return [Lead("r.act", _core.ledger_term(bytes.fromhex(wanted.act)))]
    if (resource := _number(wanted.resource)) is not None:
        return [Lead("r.resource", resource)]
    if wanted.subject is not None:
        return [Lead("r.subject", _core.ledger_term(wanted.subject))]
    if wanted.agent is not None:
        return [Lead("p.agent", _core.ledger_term(wanted.agent))]
    if (few := _few(connection, wanted.resource)) is not None:
        return [Lead("r.resource", number) for number in few]
    if wanted.outcome in ("failure", "refused"):
        return [Lead("r.ended", _ENDED[wanted.outcome])]
    if (action := _number(wanted.action)) is not None:
        return [Lead("r.what", action)]
    if (few := _few(connection, wanted.action)) is not None:
        return [Lead("r.what", number) for number in few]
    return [None]


_AMONG = "SELECT number FROM text WHERE text >= ? AND text < ?"


def _start(pattern: str) -> list[str]:
    return [pattern[:-1], pattern[:-1] + "\U0010ffff"]


def _few(connection: sqlite3.Connection, pattern: str | None) -> list[int] | None:
    """The numbers of the texts that begin so, where there are few."""
    if pattern is None or not pattern.endswith("*") or pattern == "*":
        return None
    rows = connection.execute(f"{_AMONG} LIMIT {_FEW_TEXTS + 1}", _start(pattern)).fetchall()
    return None if len(rows) > _FEW_TEXTS else sorted({number for (number,) in rows})


def statement(wanted: Filter, lead: Lead | None, *, newest: bool, after: Place | None = None) -> tuple[str, list[Any]]:
    """The query for a filter: by its lead, and whatever else is asked for tried on each that it gives."""
    terms: list[tuple[str, list[Any]]] = []
    by_party = lead is not None and lead.column == "p.agent"
    if lead is not None:
        partial = " AND r.ended > 1" if lead.column == "r.ended" else ""  # as the index over few of them says
        terms.append((f"{lead.column} = ?{partial}", [lead.number]))

    # A `+` keeps SQLite, which knows nothing of how many there are, from looking up this in place of the lead.
    if wanted.id is not None:
        number = _core.ledger_term(bytes.fromhex(wanted.id))
        terms.append(("((r.id = ? AND r.id <> r.act) OR (r.act = ? AND r.id = r.act))", [number, number]))
    if wanted.act is not None and lead is None:
        terms.append(("+r.act = ?", [_core.ledger_term(bytes.fromhex(wanted.act))]))
    if wanted.agent is not None and not by_party:
        same = "p.agent = ? AND p.time = r.time AND p.shard = r.shard AND p.at = r.at"
        among = f"EXISTS (SELECT 1 FROM party p WHERE {same})"  # noqa: S608 - of columns only
        terms.append((among, [_core.ledger_term(wanted.agent)]))
    for column, pattern in (("r.resource", wanted.resource), ("r.what", wanted.action)):
        if pattern is None or pattern == "*" or (lead is not None and lead.column == column):
            continue
        exact = _number(pattern)
        if exact is not None:
            terms.append((f"+{column} = ?", [exact]))
        else:
            terms.append((f"+{column} IN ({_AMONG})", _start(pattern)))
    if wanted.subject is not None and (lead is None or lead.column != "r.subject"):
        terms.append(("+r.subject = ?", [_core.ledger_term(wanted.subject)]))
    if wanted.outcome is not None:
        terms.append(("+r.ended = ?", [_ENDED[wanted.outcome]]))
    if wanted.kind is not None:
        terms.append(("+r.kind = ?", [_KIND[wanted.kind]]))
    place = "p" if by_party else "r"
    for comparison, moment in ((">=", wanted.since), ("<", wanted.until)):
        if moment is not None:
            terms.append((f"{place}.time {comparison} ?", [max(-SIGN, min(moment - SIGN, SIGN - 1))]))
    if after is not None:
        terms.append((f"({place}.time, {place}.shard, {place}.at) > (?, ?, ?)", [after.time, after.shard, after.at]))
    source = "party p CROSS JOIN record r ON r.time = p.time AND r.shard = p.shard AND r.at = p.at"
    order = ", ".join(f"{place}.{column}{' DESC' if newest else ''}" for column in ("time", "shard", "at"))
    where = " AND ".join(term for term, _ in terms) or "1"
    # Made of columns and operators only; what is asked for is bound.
    sql = f"SELECT r.time, r.shard, r.at, r.id FROM {source if by_party else 'record r'} WHERE {where} ORDER BY {order}"  # noqa: S608
    return sql, [value for _, values in terms for value in values]


def _number(pattern: str | None) -> int | None:
    return None if pattern is None or pattern.endswith("*") else _core.ledger_term(pattern)
