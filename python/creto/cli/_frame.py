"""What every command shares: where the state is, how data is printed, how async work is run."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

import click

from creto._plain import plain

if TYPE_CHECKING:
    from creto._core import Sealer
    from creto.config import Settings
    from creto.store import Store

__all__ = ["Frame", "json_option", "pass_frame"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
F = TypeVar("F", bound=Callable[..., Any])


class Frame:
    """The options that stand before the command, and what follows from them."""

    def __init__(self) -> None:
        self.config: tuple[Path, ...] = ()
        self.state: Path | None = None
        self.json = False
        self.verbose = False
        self._settings: Settings | None = None

    @property
    def folder(self) -> Path:
        """The state folder: `--state`, `CRETO_STATE`, or the user's own; made where it is missing."""
        from creto.store import open_folder

        return open_folder(self.state)

    @property
    def settings(self) -> Settings:
        """The configuration, loaded on first use; what was left out of it is said on standard error."""
        if self._settings is None:
            from creto.config import load

            self._settings = load(files=self.config, state=self.state)
            for warning in self._settings.warnings:
                self.warn(warning)
        return self._settings

    def store(self) -> Store:
        """The store: of the configured URL, or of the state folder."""
        from creto.store import Store

        url = self.settings.common.store_url
        return Store(url.get_secret_value() if url else self.folder)

    @property
    def who(self) -> str:
        """The user who runs the command, as records name them."""
        from creto._user import user_id

        return user_id(self.settings.common.trust_domain)

    def agent_id(self, name: str) -> str:
        """The whole id of an agent, who may be named by the last part of it.

        Raises:
            InvalidInputError: It can be no name of one.
        """
        from creto.nhi._names import agent_id

        return agent_id(name, self.settings.common.trust_domain)

    def sealer(self) -> Sealer:
        """What seals the state folder's keys, as configured."""
        return self.settings.sealer(self.folder)

    def run(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Runs async work to its end; Ctrl-C cancels it and the command exits with 130."""
        import anyio

        return anyio.run(function, *args)

    def say(self, text: str = "") -> None:
        """Prints a line for people; nothing under `--json`."""
        if not self.json:
            click.echo(_shown(text))

    def warn(self, text: str) -> None:
        """Prints a warning to standard error."""
        click.echo(f"{click.style('creto: warning:', fg='yellow')} {plain(text)}", err=True)

    def show(self, data: Any, text: str | None = None) -> None:
        """Prints one thing: as JSON under `--json`, else as `text`, or as a list of names and values.

        Args:
            data: What JSON can hold; dates, decimals, bytes (hexadecimal) and paths too.
            text: For people.
        """
        if self.json:
            click.echo(_json(data, indent=2))
        elif text is not None:
            click.echo(_shown(text))
        elif isinstance(data, Mapping):
            width = max((len(str(name)) for name in data), default=0)
            for name, value in data.items():
                # Further lines of a value stand below it, so that none passes for a name and value of its own.
                shown = _cell(value).replace("\n", f"\n{'':<{width}}  ")
                click.echo(f"{name!s:<{width}}  {shown}")
        else:
            click.echo(_cell(data))

    def line(self, data: Any, text: str) -> None:
        """Prints one of a stream: a line of JSON under `--json`, else `text`."""
        click.echo(_json(data) if self.json else _shown(text))

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        title: str = "",
        empty: str = "none",
        narrow: Iterable[str] | None = None,
    ) -> None:
        """Prints rows: a list of objects under `--json`, else a table, or one name a line where none would fit.

        Args:
            columns: Names, which are the keys in JSON.
            rows: Values in the order of the columns.
            title: Above the table.
            empty: What to print where there is no row.
            narrow: A line for each row, in place of one name a line.
        """
        listed = [list(row) for row in rows]
        if self.json:
            keys = [column.replace(" ", "_") for column in columns]
            self.show([dict(zip(keys, row, strict=True)) for row in listed])
            return
        if not listed:
            click.echo(empty)
            return
        from creto.cli._table import laid_out

        # Piped output is read by programs: nothing is folded there.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        cells = [[_cell(value) for value in row] for row in listed]
        click.echo(laid_out(list(columns), cells, width, title=title, narrow=narrow))


# Characters of two-byte controls, of direction, and without a width or an encoding: JSON lets them stand as they are.
_STEERING = re.compile("[\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")


# What `click.style` writes of bold, our colours and their end: nothing that hides or moves.
_STYLE = re.compile("(\x1b\\[(?:[012]|3[1-6])m)")


def _shown(text: str) -> str:
    """A text for people; file names, policies and agents in it do not steer the terminal, and our own colours stay."""
    return "".join(
        part if at % 2 else plain(part, lines=True, most=len(part)) for at, part in enumerate(_STYLE.split(text))
    )


def _json(data: Any, indent: int | None = None) -> str:
    """JSON that says the same to a program, and can be looked at in a terminal, whatever agents wrote into it."""
    text = json.dumps(data, indent=indent, default=_plain, ensure_ascii=False)
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{_cell(name)}={_cell(item)}" for name, item in value.items())
    text = str(_plain(value)) if isinstance(value, bytes | Path) else str(value)
    # Agents choose names and resources: no escape sequence of theirs reaches the terminal.
    return plain(text, lines=True, most=100_000)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


pass_frame = click.make_pass_decorator(Frame)


def json_option(function: F) -> F:
    """Gives a command `--json`; it sets the frame's flag, and is no argument of the function."""

    def turn_on(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(Frame).json = True

    return click.option(
        "--json", is_flag=True, expose_value=False, is_eager=True, callback=turn_on, help="Print JSON."
    )(function)
