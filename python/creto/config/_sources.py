"""Where values come from: files in TOML or YAML, with `${VAR}`, and the environment."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource
from pydantic_settings.exceptions import SettingsError

from creto.config._contents import contents, own, yaml_value
from creto.config._settings import PREFIX, Settings, is_secret, nearest
from creto.errors import InvalidInputError

__all__ = ["Layer", "from_environment", "from_file", "system_files", "system_folders"]

_VARIABLE = re.compile(r"\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SUFFIXES = (".toml", ".yaml", ".yml")


@dataclass(frozen=True)
class Layer:
    """What one source says, and where each of its values came from."""

    data: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)
    variables: frozenset[str] = frozenset()
    """Those of the environment that stand for secrets in it."""


def system_folders(home: Path | None = None) -> tuple[Path, Path]:
    """Where configuration of the machine lies, and where the user's does."""
    named = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    # A relative one is to be left out (XDG Base Directory Specification): it would be another folder in each.
    return Path("/etc/creto"), (named if named.is_absolute() else (home or Path.home()) / ".config") / "creto"


def system_files(home: Path | None = None) -> list[Path]:
    """The files of the machine and then of the user, each folder in the order of names.

    Raises:
        InvalidInputError: One of the folders is there, as far as can be told, and cannot be read: it may deny things.
    """
    try:
        return [
            path
            for folder in system_folders(home)
            if folder.is_dir()
            for path in sorted(folder.iterdir())
            if path.suffix in _SUFFIXES
        ]
    except OSError as error:
        raise InvalidInputError(
            f"the folder of configuration `{error.filename}` cannot be read: {error.strerror}; have it readable, or "
            "set HOME or XDG_CONFIG_HOME to folders of this user's own"
        ) from error


def from_file(path: Path, environment: Mapping[str, str], content: bytes | None = None) -> Layer:
    """Reads a file.

    Args:
        path: TOML or YAML, by its suffix.
        environment: For `${VAR}`; `$${VAR}` stays as `${VAR}`.
        content: In place of what is on disk.

    Raises:
        InvalidInputError: It cannot be read, has no valid reading, or names a variable that is not set.
    """
    if content is None:
        content = _content(path)
    secret: set[str] = set()
    try:
        text = content.decode()
        data = tomllib.loads(text) if path.suffix == ".toml" else yaml_value(text) or {}
        if isinstance(data, dict):
            data = _filled(data, environment, path, "", secret)
    except InvalidInputError:
        raise  # a variable that is not set says so itself
    except RecursionError as error:
        raise InvalidInputError(f"`{path}` cannot be read: it is nested too deeply") from error
    except ValueError as error:
        raise InvalidInputError(f"`{path}` cannot be read as {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(data, dict):
        raise InvalidInputError(f"`{path}` holds no settings; it should look like `[runtime]` and `name = value`")
    _resolve_paths(data, path)
    return Layer(data, _names(data, f"file {path}"), frozenset(secret))


def _content(path: Path) -> bytes:
    if path.suffix not in _SUFFIXES:
        raise InvalidInputError(f"`{path}` is no configuration file: its name must end in {', '.join(_SUFFIXES)}")
    try:
        return contents(path, require=own(path))
    except OSError as error:
        raise InvalidInputError(f"the configuration file `{path}` cannot be read: {error.strerror}") from error


def _filled(value: Any, environment: Mapping[str, str], path: Path, name: str, secret: set[str]) -> Any:
    """A value with its variables filled in; the names of those that stand for a secret come into `secret`."""
    if isinstance(value, dict):
        return {
            str(key): _filled(inner, environment, path, f"{name}.{key}".lstrip("."), secret)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_filled(inner, environment, path, name, secret) for inner in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]
        if match[2] not in environment:
            raise InvalidInputError(
                f"`{name}` (file {path}) needs the environment variable `{match[2]}`, which is not set"
            )
        if is_secret(tuple(name.split("."))):
            secret.add(match[2])
        return environment[match[2]]

    return _VARIABLE.sub(variable, value)


def _resolve_paths(data: dict[str, Any], path: Path) -> None:
    """What is relative, is so to the file that names it: not to wherever the process was started."""
    for section, values in data.items():
        known = _settings_of(section)
        if not isinstance(values, dict):
            continue
        for name, inner in values.items():
            extra = known[name].json_schema_extra if name in known else None
            if isinstance(extra, Mapping) and extra.get("path"):
                values[name] = (
                    [_absolute(each, path) for each in inner] if isinstance(inner, list) else _absolute(inner, path)
                )


def _settings_of(section: str) -> Mapping[str, FieldInfo]:
    """The settings of a section; none where there is no such section, or it is a list."""
    field_ = Settings.model_fields.get(section)
    model = field_.annotation if field_ else None
    return model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}


def _absolute(value: Any, path: Path) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return str(path.absolute().parent / Path(value).expanduser())
    except RuntimeError as error:
        raise InvalidInputError(f"`{path}` names `{value}`, and there is no such user") from error


def from_environment(environment: Mapping[str, str], base: Path = Path()) -> Layer:
    """Reads `CRETO_SECTION__NAME` variables; lists are JSON.

    Args:
        environment: The variables.
        base: What relative paths are relative to; the current folder.

    Raises:
        InvalidInputError: A variable names no section, or its JSON has no valid reading.
    """
    ours = {name: value for name, value in environment.items() if name.upper().startswith(PREFIX) and value}
    for name in ours:
        section, divider, _ = name[len(PREFIX) :].lower().partition("__")
        if divider and section not in Settings.model_fields:
            raise InvalidInputError(
                f"the environment variable `{name}` names no section{nearest(section, Settings.model_fields)}"
            )
        section, _, setting = section.partition("_")
        if not divider and setting in _settings_of(section):
            meant = f"{PREFIX}{section.upper()}__{setting.upper()}"
            raise InvalidInputError(f"the environment variable `{name}` says nothing; did you mean `{meant}`?")
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): value for name, value in ours.items()}
    try:
        data = source()
    except SettingsError as error:
        raise InvalidInputError(f"the environment cannot be read: {error}; a list is written as JSON") from error
    _resolve_paths(data, base / "environment")
    origins = {}
    for name in ours:
        setting = name[len(PREFIX) :].lower().replace("__", ".", 1)
        if setting.partition(".")[0] in data:
            origins[setting] = f"environment {name}"
    return Layer(data, origins)


def _names(data: Mapping[str, Any], origin: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for section, values in data.items():
        names[section] = origin
        if isinstance(values, Mapping):
            names.update({f"{section}.{name}": origin for name in values})
    return names
