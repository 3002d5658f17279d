"""Merges the sources into one configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from creto.config._contents import contents
from creto.config._settings import Project, Settings, problems
from creto.config._sources import Layer, from_environment, from_file, system_files
from creto.config._trust import Trust, digest
from creto.errors import InvalidInputError
from creto.store import state_folder

__all__ = ["PROJECT_FILE", "load", "named_files"]

PROJECT_FILE = "creto.toml"


def load(
    files: Sequence[str | os.PathLike[str]] = (),
    *,
    state: str | os.PathLike[str] | None = None,
    project: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    system: bool = True,
    pinned: Project | Literal[False] | None = None,
    base: Path = Path(),
) -> Settings:
    """Loads the configuration: environment over `files` over the project's over the user's over the machine's.

    Args:
        files: Configuration files, the strongest last.
        state: The state folder, which knows which project files are trusted.
        project: The folder whose `creto.toml` counts if trusted; the current one where there is none.
        environment: In place of the process's.
        system: Whether to read `/etc/creto`, the user's files and the project's.
        pinned: The project's file as it was read before, in place of what is on disk; False for none.
        base: What relative names of files here and in the environment are relative to; the current folder.

    Raises:
        InvalidInputError: A file cannot be read, a setting is not known, or a value cannot be used.

    Example:
        >>> load(environment={}, system=False).runtime.warm_pool_min_size
        10
    """
    environment = os.environ if environment is None else environment
    layers: list[Layer] = []
    read: list[Path] = []
    warnings: list[str] = []
    lapsed: list[str] = []
    if system:
        for path in system_files():
            layers.append(from_file(path, environment))
            read.append(path)
        if pinned is None:
            pinned = _trusted_project(Path(project or Path.cwd()), state_folder(state), warnings, lapsed)
        if pinned:
            layer = from_file(pinned.path, environment, pinned.content)
            pinned = replace(pinned, single=frozenset(_single(layer.data)))
            layers.append(layer)
            read.append(pinned.path)
    given = [base / file for file in files]
    named = environment.get("CRETO_CONFIG")
    if named:
        given.insert(0, base / named)
    for path in given:
        layers.append(from_file(path, environment))
        read.append(path)
    layers.append(from_environment(environment, base))

    origins: dict[str, str] = {}
    data: dict[str, Any] = {}
    for layer in layers:
        data = _over(data, layer.data)
        origins.update(layer.origins)
    try:
        settings = Settings(**data)
    except ValidationError as error:
        raise problems(error, origins) from None  # its own text would show secrets
    settings._origins = origins
    _check_natively(settings)
    if settings.oversight.email_smtp_host is None and any(one.email for one in settings.approvers):
        warnings.append("approvers get no mail: `oversight.email_smtp_host` names no server")
    settings._project = pinned or None
    settings._warnings = (*lapsed, *warnings)
    settings._lapsed = lapsed[0] if lapsed else None
    settings._files = tuple(read)
    settings._secret_variables = frozenset().union(*(layer.variables for layer in layers))
    return settings


def _single(data: Mapping[str, Any]) -> Iterator[str]:
    for section, name in (("authz", "schema_file"), ("metering", "model_prices")):
        values = data.get(section)
        path = values.get(name) if isinstance(values, Mapping) else None
        if isinstance(path, str):
            yield str(Path(path).resolve())


def _trusted_project(folder: Path, state: Path, warnings: list[str], lapsed: list[str]) -> Project | None:
    """The project's file where it is trusted; a warning where it is not, and what has lapsed where it was."""
    path = folder / PROJECT_FILE
    try:
        content = contents(path)
    except FileNotFoundError:
        trusted = Trust(state).find(path)
        if trusted is not None:
            lapsed.append(
                f"`{path}` was trusted by {trusted.who} and is gone, so its policies and settings do not count; "
                "put it back, or run `creto config trust --revoke`"
            )
        return None
    except OSError as error:
        warnings.append(f"`{path}` is left out: it cannot be read: {error.strerror}")
        return None
    except InvalidInputError as error:
        warnings.append(f"it is left out: {error}")
        return None
    trusted = Trust(state).find(path)
    advice = "read it, then run `creto config trust`"
    if trusted is None:
        warnings.append(f"`{path}` is left out: nobody has trusted it yet; {advice}")
        return None
    # Of the very bytes that are parsed, so that no change slips in between.
    if trusted.files.get(str(path.resolve())) != digest(content):
        lapsed.append(f"`{path}` is left out: it has changed since {trusted.who} trusted it; {advice}")
        return None
    return Project(path, content, dict(trusted.files))


def named_files(path: Path, environment: Mapping[str, str], content: bytes | None = None) -> list[Path]:
    """The files that a configuration file names: policies and what belongs to them, keys, prices.

    Raises:
        InvalidInputError: The file cannot be used.
    """
    layer = from_file(path, environment, content)
    try:
        settings = Settings(**layer.data)
    except ValidationError as error:
        raise problems(error, layer.origins) from None
    named = settings.named_files()
    missing = [each for each in named if not each.is_file()]
    if missing:
        raise InvalidInputError(f"`{path}` names `{missing[0]}`, which is not there")
    return named


def _check_natively(settings: Settings) -> None:
    """Has the parts that use a section in Rust read it: they, not this module, know what works together."""
    from creto._core import check_section

    lines = []
    for name in type(settings).model_fields:
        wrong = check_section(name, settings.section_json(name))
        if wrong:
            setting, problem = wrong
            lines.append(f"`{setting}` ({settings.origin(setting)}): {problem}")
    if lines:
        raise InvalidInputError("the configuration cannot be used: " + "; ".join(lines))


def _over(weak: Mapping[str, Any], strong: Mapping[str, Any]) -> dict[str, Any]:
    """Sections are merged setting by setting; a list is replaced whole."""
    merged = dict(weak)
    for name, value in strong.items():
        below = merged.get(name)
        merged[name] = _over(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
