"""`creto policy check`: what does not parse or validate, and what may not mean what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import combining, east_asian_width

import click

from creto._count import counted
from creto._plain import plain
from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli.policy._sets import FILE, entities_text, read, schema_text, solver_seconds
from creto.cli.policy._slips import located, slips

__all__ = ["command"]

_LINE = 400
"""Characters of a line that are shown."""
_WITHIN = re.compile(r"policies, line (\d+): ")


@click.command("check")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--schema", type=FILE, help="The schema; that of the starter sets by default.")
@click.option("--entities", type=FILE, help="Entities in Cedar's JSON.")
@click.option("--prove", is_flag=True, help="Look with the solver too: policies that can never apply or never matter.")
@solver_seconds
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@json_option
@pass_frame
def command(
    frame: Frame,
    files: tuple[Path, ...],
    schema: Path | None,
    entities: Path | None,
    prove: bool,
    seconds: int,
    strict: bool,
) -> None:
    """Parse, validate against the schema, and look for what may not mean what it says.

    The files are one set, as they are when they are installed. A policy that is meant as it stands says so:
    `@expect("unconditional")` silences that warning for it.

    \b
    Example:
      creto policy check policies/*.cedar --schema schema.cedarschema
    """
    from creto import _core

    given = entities_text(entities)
    schema_given = schema_text(schema)
    texts = [read(file) for file in files]
    text = "\n".join(texts)
    found = [*_core.policy_findings(text, schema_given, given), *slips(text)]
    if prove and not any(finding["severity"] == "error" for finding in found):
        from creto.authz._solver import solver_command

        proved = _core.policy_examine(text, schema_given, solver_command(), seconds * 1000)
        seen = {(finding["rule"], finding["policy"]) for finding in found}
        found += [finding for finding in proved if (finding["rule"], finding["policy"]) not in seen]
    # Lines as they are counted: of everything that Python takes for the end of a line, only this one is.
    lines = {str(file): each.split("\n") for file, each in zip(files, texts, strict=True)}
    place = _Places(files, [len(lines[str(file)]) for file in files], schema, entities)
    listed = [place(finding) for finding in located(found, text)]
    if frame.json:
        frame.show(listed)
    else:
        schema_lines = schema_given.split("\n")
        for finding in listed:
            _print(frame, finding, schema_lines if finding["rule"] == "schema" else lines.get(finding["file"], []))
    errors = sum(finding["severity"] == "error" for finding in found)
    warnings = len(found) - errors
    frame.say(f"{counted(len(files), 'file')}: {counted(errors, 'error')}, {counted(warnings, 'warning')}")
    if errors or (strict and warnings):
        raise click.exceptions.Exit(1)


@dataclass(frozen=True)
class _Places:
    """Says of a finding in the joined text which file it is in, and where there."""

    files: tuple[Path, ...]
    lines: list[int]
    schema: Path | None
    entities: Path | None

    def __call__(self, finding: dict[str, Any]) -> dict[str, Any]:
        from creto.authz._configured import in_file

        other = {"schema": self.schema or "the starter schema", "entities": self.entities}.get(finding["rule"])
        if other is not None:
            return {"file": str(other), **finding}
        line, within = finding["line"], _WITHIN.match(finding["message"])
        if line is None and within:  # what is refused before it is parsed has no column
            file, line = in_file(int(within[1]), self.files, self.lines)
            return {"file": str(file), **finding, "message": finding["message"][within.end() :], "line": line}
        if line is None:
            return {"file": str(self.files[0]) if len(self.files) == 1 else None, **finding}
        file, line = in_file(line, self.files, self.lines)
        return {"file": str(file), **finding, "line": line}


def _print(frame: Frame, finding: dict[str, Any], lines: list[str]) -> None:
    place = ":".join(str(each) for each in ("", finding["line"], finding["column"]) if each is not None)
    color = "red" if finding["severity"] == "error" else "yellow"
    word = click.style(finding["severity"], fg=color)
    where = f"{finding['file']}{place}: " if finding["file"] else ""
    frame.say(f"{where}{word} [{finding['rule']}]: {finding['message']}")
    if finding["line"] and finding["column"]:
        for line in _caret(lines, finding):
            frame.say(line)
    if finding["help"]:
        frame.say(f"  help: {finding['help']}")


def _caret(lines: list[str], finding: dict[str, Any]) -> list[str]:
    """The line that a finding is about, and a caret under it."""
    line = lines[min(finding["line"], len(lines)) - 1].rstrip("\r")
    column = finding["column"]
    # The length is in bytes, as the text was parsed.
    marked = line[column - 1 :].encode()[: finding["length"] or 1].decode(errors="ignore") or line[column - 1 : column]
    # What is not seen is spelt out, and a caret stands under every column that it then takes.
    before, under = plain(line[: column - 1].expandtabs(4), most=_LINE), plain(marked, most=_LINE) or " "
    number = str(finding["line"])
    shown = plain(line.expandtabs(4), most=_LINE)
    return [f"  {number} | {shown}", f"  {' ' * len(number)} | {' ' * _wide(before)}{'^' * _wide(under)}"]


def _wide(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
