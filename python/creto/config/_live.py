"""The configuration of a running process: reloaded when its files change, swapped whole, never half.

A file with a mistake is refused and the old configuration stays; a project's `creto.toml` stays as it was at the start.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from creto.config._governed import Governed
from creto.config._load import load
from creto.config._settings import Settings, expand, is_reloadable
from creto.config._sources import system_files
from creto.config._trust import digest
from creto.errors import CretoError

__all__ = ["Change", "Live", "Reload"]

_log = logging.getLogger("creto.config")


@dataclass(frozen=True)
class Change:
    """One setting that differs.

    Example:
        >>> Change("oversight.default_timeout_seconds", 3600.0, 60.0, "/etc/creto/a.toml", applied=True).new
        60.0
    """

    setting: str
    old: Any
    new: Any
    origin: str
    applied: bool
    """False where it counts only after a restart."""


@dataclass(frozen=True)
class Reload:
    """What one reload came to.

    Example:
        >>> Reload((Change("common.suite", "standard", "cnsa2", "/etc/creto/a.toml", applied=False),)).waiting
        ['common.suite']
    """

    changes: tuple[Change, ...] = ()
    refused: str | None = None
    """Why the new configuration was refused as a whole; the old one stays."""

    @property
    def waiting(self) -> list[str]:
        """The settings that changed and need a restart."""
        return [change.setting for change in self.changes if not change.applied]


class Live:
    """A configuration that follows its files.

    Args:
        files: As for `load`.
        state: As for `load`.
        project: As for `load`.
        environment: As for `load`.
        system: As for `load`.
        record: Takes an audit record (fields by name) of every reload.

    Raises:
        InvalidInputError: The configuration cannot be used as it is at the start.

    Example:
        >>> live = Live(environment={}, system=False)
        >>> live.reload(who="test").changes
        ()
    """

    def __init__(
        self,
        files: Sequence[str | os.PathLike[str]] = (),
        *,
        state: str | os.PathLike[str] | None = None,
        project: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        system: bool = True,
        record: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        # Wherever the process goes later: what lies in a folder that agents work in is not its configuration.
        base = Path.cwd()
        self._sources: dict[str, Any] = {
            "files": [base / file for file in files],
            "base": base,
            "state": state,
            "project": base / (project or ""),
            "environment": dict(os.environ if environment is None else environment),
            "system": system,
        }
        self._record = record
        self._takers: list[Callable[[Settings], None]] = []
        self._reloading = threading.Lock()
        self._again = threading.Event()
        self._halfway = False  # a part could not go back from a configuration that another refused
        self._current = load(**self._sources)
        # Never changes under a running agent: an absent or untrusted file stays absent, too.
        self._sources["pinned"] = self._current._project or False
        self._contents = self._fingerprint(self._current)
        # Here, not when `watch` begins: what changes between the two is a change.
        self._seen = self._look()
        _set_level(self._current)

    @property
    def current(self) -> Settings:
        """The configuration that counts now."""
        return self._current

    def governed(self) -> Governed:
        """What decides about agents, as it lies now; no agent may change any of it."""
        return Governed((*self._sources["files"], *self._current.sources), self._current)

    def follow(self, take: Callable[[Settings], None]) -> None:
        """Calls `take` with each new configuration before it counts; where it raises, none of it does.

        Args:
            take: Validates and takes up what it needs. A second call, with the old configuration, must undo the first.
        """
        self._takers.append(take)

    def reload(self, who: str) -> Reload:
        """Reads the sources again and swaps, or refuses and says why.

        Args:
            who: Who asked, for the record.
        """
        with self._reloading:
            old = self._current
            before = self._contents
            try:
                new = load(**self._sources)
                contents = self._fingerprint(new)
            except CretoError as error:
                return self._refused(who, str(error))
            changes = _changes(old, new, before, contents)
            if not changes and not self._halfway:
                self._contents = contents
                return Reload()
            merged = _keep_fixed(old, new)
            taken: list[Callable[[Settings], None]] = []
            try:
                for take in self._takers:
                    taken.append(take)
                    take(merged)
            except BaseException as error:
                self._take_back(taken[:-1], old)
                if not isinstance(error, CretoError):
                    raise
                if error.should_retry:
                    self._again.set()  # a store that was busy, say: the same may be taken up at the next look
                return self._refused(who, str(error))
            self._halfway = False
            self._current = merged
            _set_level(merged)
            self._contents = contents
            if changes:
                _log.info("the configuration was reloaded by %s: %s", who, ", ".join(each.setting for each in changes))
                self._tell(who, "success", {change.setting: _line(change) for change in changes})
            return Reload(tuple(changes))

    def _take_back(self, taken: Sequence[Callable[[Settings], None]], old: Settings) -> None:
        """Has those that took up a configuration take up the one before it; who cannot now does at a later look."""
        for take in reversed(taken):
            try:
                take(old)
            except CretoError as error:
                _log.error("a part cannot go back to the old configuration yet: %s", error)
                self._halfway = True
                self._again.set()

    def _refused(self, who: str, why: str) -> Reload:
        _log.warning("the changed configuration is refused, the old one stays: %s", why)
        self._tell(who, {"failure": why[:500]}, {})
        return Reload(refused=why)

    def _tell(self, who: str, outcome: Any, detail: dict[str, str]) -> None:
        if self._record:
            self._record(
                {
                    "who": who,
                    "what": "config:reload",
                    "resource": ", ".join(str(path) for path in self._current.sources) or "environment",
                    "outcome": outcome,
                    "kind": "event",
                    "detail": detail,
                }
            )

    async def watch(self, *, interval: float = 1.0, told: Callable[[Reload], None] | None = None) -> None:
        """Reloads whenever a file of the configuration, or a policy file that it names, changes; runs until cancelled.

        Args:
            interval: Seconds between looks.
            told: Called with each reload that changed something or was refused.
        """
        while True:
            await anyio.sleep(interval)
            now = await anyio.to_thread.run_sync(self._look)
            if now == self._seen and not self._again.is_set():
                continue
            self._again.clear()
            # A file that is being written settles first.
            await anyio.sleep(min(interval, 0.1))
            self._seen = await anyio.to_thread.run_sync(self._look)
            outcome = await anyio.to_thread.run_sync(self.reload, "file watch")
            if told and (outcome.changes or outcome.refused):
                told(outcome)

    def look_again(self) -> None:
        """Has `watch` reload at its next look though no file has changed: what was refused may be taken in now."""
        self._again.set()

    def _watched(self) -> set[Path]:
        paths = set(self._sources["files"]) | set(self._current.sources)
        if self._sources["system"]:
            with suppress(CretoError):  # a folder that cannot be read any more: reloading says so
                paths |= set(system_files())
        for _setting, pattern in _followed(self._current):
            try:
                paths |= set(expand(pattern))
            except CretoError:
                paths.add(pattern)
        return paths

    def _look(self) -> dict[Path, tuple[int, int, int] | None]:
        seen: dict[Path, tuple[int, int, int] | None] = {}
        for path in self._watched():
            try:
                found = path.stat()
                seen[path] = (found.st_mtime_ns, found.st_size, found.st_ino)
            except OSError:
                seen[path] = None
        return seen

    @staticmethod
    def _fingerprint(settings: Settings) -> dict[tuple[str, Path], str]:
        return {
            (setting, path): digest(content)
            for setting, pattern in _followed(settings)
            for path, content in settings.files(setting, [pattern])
        }


def _followed(settings: Settings) -> list[tuple[str, Path]]:
    """The paths and patterns whose files are taken up anew when they change, each after its setting."""
    return [(setting, pattern) for setting, pattern in settings.named() if is_reloadable(setting)]


def _set_level(settings: Settings) -> None:
    logging.getLogger("creto").setLevel(settings.common.log_level.upper())


def _changes(
    old: Settings,
    new: Settings,
    before: Mapping[tuple[str, Path], str],
    contents: Mapping[tuple[str, Path], str],
) -> list[Change]:
    was = {name: value for name, value, _ in old.values()}
    changes = []
    for name, value, origin in new.values():
        # Masked values are equal though the secrets differ: compare what is behind them.
        if _behind(old, name) != _behind(new, name):
            changes.append(Change(name, was[name], value, origin, is_reloadable(name)))
    for key in sorted(set(before) | set(contents)):
        digest_before, digest_now, (setting, path) = before.get(key), contents.get(key), key
        if digest_before != digest_now:
            changes.append(Change(f"{setting}[{path}]", digest_before, digest_now, f"file {path}", True))
    return changes


def _behind(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _keep_fixed(old: Settings, new: Settings) -> Settings:
    """The new configuration, with what only a restart can change as it was."""
    update: dict[str, Any] = {}
    for name in type(new).model_fields:
        value = getattr(new, name)
        if isinstance(value, list):
            continue
        inner = type(value).model_fields
        fixed = {each: getattr(getattr(old, name), each) for each in inner if not is_reloadable(f"{name}.{each}")}
        update[name] = value.model_copy(update=fixed)
    merged = new.model_copy(update=update)
    merged._origins = {
        name: old.origin(name) if "." in name and not is_reloadable(name) else origin
        for name, origin in new._origins.items()
    }
    return merged


def _line(change: Change) -> str:
    if change.setting.endswith("]"):  # a file, by its digests
        return f"{(change.old or 'none')[:16]} -> {(change.new or 'none')[:16]}"
    text = f"{change.old} -> {change.new}"
    return text[:200] if change.applied else text[:200] + " (counts after a restart)"
