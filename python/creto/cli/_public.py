"""What an outsider brings to a check: the ledger's public files, from a folder or a server, and its keys."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from creto.errors import NotFoundError

if TYPE_CHECKING:
    from creto import _core
    from creto.cli._frame import Frame

__all__ = ["brought_keys", "key_option", "ledger_files", "ledger_options"]

key_option = click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A public key of the ledger (`creto audit keys`), from elsewhere than the folder that is checked.",
)


def ledger_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which ledger, and with which keys."""
    for option in (
        key_option,
        click.option(
            "--most-mib",
            type=click.IntRange(min=1),
            default=4096,
            show_default=True,
            help="How much of a ledger that is served elsewhere may be fetched.",
        ),
        click.option(
            "--ledger",
            help="The ledger's public files: a folder, or where `creto audit serve` answers; the state folder's own, "
            "where none are given.",
        ),
    ):
        function = option(function)
    return function


def brought_keys(frame: Frame, files: tuple[Path, ...]) -> list[_core.VerifyingKey]:
    """The keys of `files`, for which no state folder is needed, or else the state folder's own."""
    from creto.audit import trusted_keys

    return trusted_keys(Path() if files else frame.folder, files)


@contextmanager
def ledger_files(frame: Frame, ledger: str | None, most_mib: int) -> Iterator[Path]:
    """The folder of a ledger's public files; of one that is served elsewhere, fetched for as long as it is needed.

    Raises:
        NotFoundError: There is no folder, or no shard in it: nothing would be checked.
    """
    if ledger is None:
        yield frame.folder / "ledger"
        return
    with tempfile.TemporaryDirectory(prefix="creto-ledger-") as fetched:
        folder = Path(fetched if "://" in ledger else ledger)
        if "://" in ledger:
            from creto.audit._fetch import fetch

            fetch(ledger, folder, most=most_mib << 20)
        if not folder.is_dir():
            raise NotFoundError(f"there is no folder `{ledger}`")
        if not any(folder.glob("*/checkpoint")):
            raise NotFoundError(f"`{ledger}` holds no ledger: its folders are shards, each with a `checkpoint`")
        yield folder
