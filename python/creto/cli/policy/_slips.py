"""Slips of the pen that parse, validate and then say nothing: names that nobody has, and a set without a policy."""

from __future__ import annotations

import difflib
import json
import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

__all__ = ["located", "slips"]

# What stands in comments and in texts is neither; the first two are looked for before any text is.
_TOKEN = re.compile(
    r'//[^\n]*|(?<![\w:])Agent::"(?P<agent>(?:[^"\\]|\\.)*)"|@(?P<word>\w+)(?:\s*\(\s*(?P<value>"(?:[^"\\]|\\.)*")\s*\))?'
    r'|"(?:[^"\\]|\\.)*"|(?P<end>;)'
)
_COMMENT = re.compile(r"//[^\n]*")
_OURS = ("id", "oversight", "audit", "expect")


def slips(text: str) -> list[dict[str, Any]]:
    """Warnings of such names, in the form of `policy_findings`; a policy's own `@expect` silences those in it.

    Args:
        text: Cedar policies.

    Example:
        >>> [found["message"] for found in slips('@oversigt("x") forbid (principal, action, resource);')]
        ['`@oversigt` says nothing to creto']
    """
    if not _COMMENT.sub("", text).strip():
        message = "the set holds no policy: every act is denied"
        return [{**_warning("empty", message, "write a permit; `creto policy new` begins with some"), **_NOWHERE}]
    starts = _starts(text)
    found: list[dict[str, Any]] = []
    own: list[dict[str, Any]] = []
    expected: set[str] = set()
    for token in _TOKEN.finditer(text):
        word, agent = token["word"], token["agent"]
        if word == "expect" and token["value"]:
            expected.update(rule.strip() for rule in token["value"][1:-1].split(","))
        if word is not None and word not in _OURS:
            meant = difflib.get_close_matches(word, _OURS, n=1, cutoff=0.7)
            if meant:
                told = _warning("annotation", f"`@{word}` says nothing to creto", f"did you mean `@{meant[0]}`?")
                own.append({**told, **_place(starts, token.start(), f"@{word}")})
        if agent is not None and "://" not in agent:
            told = _warning(
                "agent-name",
                f"no agent has the id `{agent}`: creto names agents by their SPIFFE id",
                f'write `Agent::"spiffe://creto.local/agent/{agent}"`, with your `common.trust_domain`',
            )
            own.append({**told, **_place(starts, token.start(), token[0])})
        if token["end"]:
            found += [each for each in own if each["rule"] not in expected]
            own, expected = [], set()
    return found + own


def located(findings: Iterable[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The findings, those that know their policy and not their line with the line of that policy's `@id`.

    Args:
        findings: As `policy_findings` gives them.
        text: The policies.
    """
    findings = list(findings)
    lost = {
        json.dumps(finding["policy"], ensure_ascii=False)
        for finding in findings
        if finding["line"] is None and finding["policy"] is not None
    }
    if not lost:
        return findings
    starts = _starts(text)
    places: dict[str, dict[str, int]] = {}
    for token in _TOKEN.finditer(text):
        if token["word"] == "id" and token["value"] in lost:
            places.setdefault(token["value"], _place(starts, token.start(), token[0]))
    return [
        {**finding, **places.get(json.dumps(finding["policy"], ensure_ascii=False), {})}
        if finding["line"] is None
        else finding
        for finding in findings
    ]


_NOWHERE = {"line": None, "column": None, "length": None}


def _warning(rule: str, message: str, help: str) -> dict[str, Any]:
    return {"severity": "warning", "rule": rule, "policy": None, "message": message, "help": help}


def _starts(text: str) -> list[int]:
    """Where each line begins."""
    return [0, *(found.end() for found in re.finditer("\n", text))]


def _place(starts: list[int], start: int, marked: str) -> dict[str, int]:
    line = bisect_right(starts, start)
    return {"line": line, "column": start - starts[line - 1] + 1, "length": len(marked.encode())}
