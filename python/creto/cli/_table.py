"""Tables for terminals: no word is cut; where a table would not fit, each row stands by itself, one name a line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

__all__ = ["laid_out"]

_GAP = 2
_NUMBER = re.compile(r"-?[0-9][0-9,]*(\.[0-9]+)?( [A-Z]{3})?|-")
# A time stays on one line, as numbers and names do.
_WORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d\S*|\S+")


def laid_out(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None,
    *,
    title: str = "",
    narrow: Iterable[str] | None = None,
) -> str:
    """A table, or what stands in its place.

    Args:
        columns: Names; one without a name, such as a bar, is left out where there is no room.
        rows: Cells in the order of the columns.
        width: Of the terminal, in columns; None where nothing has to fit.
        title: Above it.
        narrow: A line for each row, where the table does not fit.

    Example:
        >>> print(laid_out(["name", "used"], [["reader", "4"], ["writer", "12"]], 80))
        name    used
        ────────────
        reader     4
        writer    12
        >>> print(laid_out(["name", "used"], [["reader", "4"]], 10))
        name  reader
        used  4
    """
    if width is not None and _least(columns, rows) > width and "" in columns:
        kept = [place for place, column in enumerate(columns) if column]
        columns = [columns[place] for place in kept]
        rows = [[row[place] for place in kept] for row in rows]
    if width is not None and _least(columns, rows) > width:
        body = "\n".join(narrow) if narrow is not None else "\n\n".join(_alone(columns, row) for row in rows)
        return f"{title}\n\n{body}" if title else body
    return _table(columns, rows, width, title)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, title: str) -> str:
    import io

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for place, column in enumerate(columns):
        numeric = bool(column) and all(_NUMBER.fullmatch(row[place]) for row in rows)
        table.add_column(
            column,
            overflow="fold",
            justify="right" if numeric else "left",
            min_width=_longest_word([column, *(row[place] for row in rows)]),
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out = io.StringIO()
    Console(file=out, width=width or max(200, _whole(columns, rows)), color_system=None, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip("\n").split("\n"))


def _alone(columns: Sequence[str], row: Sequence[str]) -> str:
    wide = max(map(len, columns))
    return "\n".join(f"{column:<{wide}}  {cell}".rstrip() for column, cell in zip(columns, row, strict=True))


def _cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _longest_word(texts: Sequence[str]) -> int:
    return max((_cells(word) for text in texts for word in _WORD.findall(text)), default=1)


def _least(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """How narrow the table can be without a word cut."""
    words = [_longest_word([column, *(row[place] for row in rows)]) for place, column in enumerate(columns)]
    return sum(words) + _GAP * (len(columns) - 1)


def _whole(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """How wide it is where nothing is folded."""
    widest = [
        max(_cells(line) for text in (column, *(row[place] for row in rows)) for line in text.split("\n"))
        for place, column in enumerate(columns)
    ]
    return sum(widest) + _GAP * (len(columns) - 1)
