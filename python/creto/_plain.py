"""Text of agents, made safe to show: nothing in it can move the cursor, hide, or turn what a human reads around."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from creto._count import currency_of, measured

__all__ = ["cell", "is_text", "plain", "quantities", "short", "value", "values"]

_SHOWN = {"\n", "\t"}


def plain(text: str, *, lines: bool = False, most: int = 4000) -> str:
    r"""Spells out control, format and bidirectional characters, and those that nothing is drawn for.

    Args:
        text: Anything, from anyone.
        lines: Keep line ends and tabs.
        most: Longer text is cut, and the cut is said.

    Example:
        >>> plain("a\x1b[2Jb\u202ec"), plain("supplier\u3164")
        ('a\\x1b[2Jb\\u202ec', 'supplier\\u3164')
    """
    keep = _SHOWN if lines else set()
    cut = len(text) - most
    shown = "".join(c if c in keep or _visible(c) else _spelt(c) for c in text[:most])
    return f"{shown}… ({cut} more characters)" if cut > 0 else shown


def is_text(text: str) -> bool:
    r"""False where halves of characters stand alone, which no policy, no record and no file could hold.

    Example:
        >>> is_text("caf\u00e9"), is_text("\ud800")
        (True, False)
    """
    return not any("\ud800" <= c <= "\udfff" for c in text)


_UNSEEN = r"[\s\x00-\x20\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u2064\ufeff]*"
# Where a cell begins, to some also after a semicolon or a line's end, however far what is not seen comes before it.
_FORMULA = re.compile(rf"\A(?=[\t\r])|(?:\A|[;\t\r\n])(?={_UNSEEN}[=+\-@\uff1d\uff0b\uff0d\uff20])")


def cell(text: str) -> str:
    """A text for a table of CSV that no spreadsheet takes for a formula: what agents wrote must not run there.

    Example:
        >>> cell("=1+1"), cell("a;=1+1"), cell("1 - 1")
        ("'=1+1", "a;'=1+1", '1 - 1')
    """
    return _FORMULA.sub(r"\g<0>'", text)


def _visible(c: str) -> bool:
    # Categories: control, format (bidi marks, joiners), surrogate, private, unassigned, line and paragraph separators;
    # and of spaces all but the usual one, which the others are taken for.
    category = unicodedata.category(c)
    return (
        category not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} and (category != "Zs" or c == " ") and not _blank(c)
    )


def _blank(c: str) -> bool:
    """Letters and marks that nothing is drawn for (`Default_Ignorable_Code_Point`, and Braille's empty pattern)."""
    return c > "\u034e" and (
        c in "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
        or "\ufe00" <= c <= "\ufe0f"
        or "\U000e0100" <= c <= "\U000e01ef"
    )


def _spelt(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def value(encoded: Any, most: int = 400) -> str:
    """One value of an act's context, for people, from its stated encoding.

    Example:
        >>> value({"__extn": {"fn": "decimal", "arg": "12.5"}}), value([1, "a"]), value(None), value("")
        ('12.5', '1, a', 'none', '(empty)')
    """
    match encoded:
        case None:
            return "none"
        case True | False:
            return "yes" if encoded else "no"
        case {"__extn": {"arg": text}}:
            return plain(str(text), most=most)
        case {"__integer": digits}:
            return plain(str(digits), most=most)
        case {"__entity": {"type": kind, "id": name}}:
            return plain(f'{kind}::"{name}"', most=most)
        case {"__bytes": text}:
            return plain(f"bytes {text}", most=most)
        case {"__set": members} | list(members):
            return plain(", ".join(value(member, most) for member in members) or "(empty)", most=most)
        case "":
            return "(empty)"  # else what stands after it would be read for it
        case dict():
            return plain(", ".join(f"{name}={value(member, most)}" for name, member in encoded.items()), most=most)
        case _:
            return plain(str(encoded), most=most)


def values(context: dict[str, Any], most: int = 400) -> list[tuple[str, str]]:
    """Names and values of a context, for people."""
    return [(plain(name, most=80), value(member, most)) for name, member in context.items()]


def short(identity: str) -> str:
    """The name at the end of a SPIFFE id.

    Example:
        >>> short("spiffe://creto.local/agent/researcher")
        'researcher'
    """
    return plain(identity.rsplit("/", 1)[-1], most=80)


def quantities(usage: Mapping[str, Any]) -> list[str]:
    """What an act uses, for people: money as money, anything else with its meter.

    Example:
        >>> quantities({"tokens": 1200, "spent:USD": 4_500_000_000})
        ['1,200 tokens', '4.50 USD spent']
    """
    return [
        plain(f"{measured(meter, quantity)} {meter.partition(':')[0] if currency_of(meter) else meter}", most=120)
        if isinstance(quantity, int)
        else f"{value(quantity)} {plain(meter, most=80)}"
        for meter, quantity in usage.items()
    ]
