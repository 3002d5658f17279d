"""Slips of the pen that parse, validate and then say nothing: an annotation's or an agent's name that nobody has."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any

__all__ = ["located", "slips"]

# What stands in comments and in texts is neither; the first two are looked for before any text is.
_TOKEN = re.compile(
    r'//[^\n]*|\bAgent::"(?P<agent>(?:[^"\\]|\\.)*)"|@(?P<word>\w+)(?:\s*\(\s*(?P<value>"(?:[^"\\]|\\.)*")\s*\))?'
    r'|"(?:[^"\\]|\\.)*"'
)
_OURS = ("id", "oversight", "audit", "expect")


def slips(text: str) -> list[dict[str, Any]]:
    """Warnings of such names, in the form of `policy_findings`.

    Args:
        text: Cedar policies.

    Example:
        >>> [found["message"] for found in slips('@oversigt("x") forbid (principal, action, resource);')]
        ['`@oversigt` says nothing to creto']
    """
    found = []
    for token in _TOKEN.finditer(text):
        word, agent = token["word"], token["agent"]
        if word is not None and word not in _OURS:
            meant = difflib.get_close_matches(word, _OURS, n=1, cutoff=0.7)
            if meant:
                message, help = f"`@{word}` says nothing to creto", f"did you mean `@{meant[0]}`?"
                found.append(_warning("annotation", message, help, text, token.start(), f"@{word}"))
        if agent is not None and "://" not in agent:
            message = f"no agent has the id `{agent}`: creto names agents by their SPIFFE id"
            help = f'write `Agent::"spiffe://creto.local/agent/{agent}"`, with your `common.trust_domain`'
            found.append(_warning("agent-name", message, help, text, token.start(), token[0]))
    return found


def located(finding: dict[str, Any], text: str) -> dict[str, Any]:
    """A finding that knows its policy and not its line: the line of that policy's `@id`.

    Args:
        finding: As `policy_findings` gives it.
        text: The policies.
    """
    if finding["line"] is None and finding["policy"] is not None:
        for token in _TOKEN.finditer(text):
            if token["word"] == "id" and token["value"] == json.dumps(finding["policy"], ensure_ascii=False):
                return {**finding, **_place(text, token.start(), token[0])}
    return finding


def _warning(rule: str, message: str, help: str, text: str, start: int, marked: str) -> dict[str, Any]:
    told = {"severity": "warning", "rule": rule, "policy": None, "message": message, "help": help}
    return {**told, **_place(text, start, marked)}


def _place(text: str, start: int, marked: str) -> dict[str, Any]:
    before = text[:start]
    column = start - (before.rfind("\n") + 1) + 1
    return {"line": before.count("\n") + 1, "column": column, "length": len(marked.encode())}
