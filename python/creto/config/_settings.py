"""The whole configuration as one value that knows where each part of it came from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from creto.config._sections import (
    Approver,
    Audit,
    Authz,
    Channel,
    Common,
    Customer,
    Issuer,
    Messaging,
    Metering,
    Oversight,
    Price,
    Quota,
    Runtime,
    described,
)
from creto.errors import IntegrityError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from creto import _core

__all__ = ["PREFIX", "Project", "Settings", "is_reloadable", "nearest", "problems"]

PREFIX = "CRETO_"
_SIGNED = {"authz.policies", "authz.schema_file", "authz.entities", "authz.signature"}
_MASK = "********"


@dataclass(frozen=True)
class Project:
    """A project's configuration file as it was read and trusted."""

    path: Path
    content: bytes
    digests: Mapping[str, str]
    """Of it and the files that it names, by resolved path."""
    single: frozenset[str] = frozenset()
    """The resolved paths of the schema and the table of prices, where it names them: no pattern loses these."""


class Settings(BaseSettings):
    """Every setting, by section; made by `load`.

    Example:
        >>> from creto.config import load
        >>> settings = load(environment={"CRETO_RUNTIME__DEFAULT_BACKEND": "process"}, system=False)
        >>> settings.runtime.default_backend, settings.origin("runtime.default_backend")
        ('process', 'environment CRETO_RUNTIME__DEFAULT_BACKEND')
    """

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        json_schema_extra=described,
    )

    common: Common = Field(default_factory=Common)
    authz: Authz = Field(default_factory=Authz)
    audit: Audit = Field(default_factory=Audit)
    metering: Metering = Field(default_factory=Metering)
    oversight: Oversight = Field(default_factory=Oversight)
    runtime: Runtime = Field(default_factory=Runtime)
    messaging: Messaging = Field(default_factory=Messaging)
    issuer: Issuer = Field(default_factory=Issuer, json_schema_extra={"reload": True})
    quotas: list[Quota] = Field(default=[], json_schema_extra={"reload": True})
    prices: list[Price] = Field(default=[], json_schema_extra={"reload": True})
    customers: list[Customer] = Field(default=[], json_schema_extra={"reload": True})
    approvers: list[Approver] = Field(default=[], json_schema_extra={"reload": True})
    channels: list[Channel] = Field(default=[], json_schema_extra={"reload": True})

    @field_validator("approvers")
    @classmethod
    def _each_once(cls, value: list[Approver]) -> list[Approver]:
        names = [one.name for one in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"`{twice}` is there twice: give each approver a name of its own")
        return value

    @field_validator("customers")
    @classmethod
    def _each_customer_once(cls, value: list[Customer]) -> list[Customer]:
        twice = next((one.id for place, one in enumerate(value) if one.id in {two.id for two in value[:place]}), None)
        if twice is not None:
            raise ValueError(f"`{twice}` is there twice: write what is known of a customer in one place")
        return value

    @field_validator("channels")
    @classmethod
    def _can_be_sent(cls, value: list[Channel], others: ValidationInfo) -> list[Channel]:
        oversight = others.data.get("oversight")
        for one in value:
            if one.kind == "email" and oversight is not None and oversight.email_smtp_host is None:
                raise ValueError(f"`{one.name}` sends mail, and `oversight.email_smtp_host` names no server for it")
        return value

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _project: Project | None = PrivateAttr(default=None)
    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _lapsed: str | None = PrivateAttr(default=None)
    _files: tuple[Path, ...] = PrivateAttr(default=())
    _secret_variables: frozenset[str] = PrivateAttr(default=frozenset())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources are merged by `load`, which also needs to know which value came from which."""
        return (init_settings,)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was left out, and why; for the person who started this."""
        return self._warnings

    def require_as_trusted(self) -> None:
        """Raises IntegrityError where the project's file was trusted and is not as it was: policy would be another one.

        Example:
            >>> from creto.config import load
            >>> load(environment={}, system=False).require_as_trusted()
        """
        if self._lapsed is not None:
            raise IntegrityError(self._lapsed)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that were read, the weakest first."""
        return self._files

    @property
    def secret_variables(self) -> frozenset[str]:
        """Variables of the environment that files have stand for secrets, as `url = "${SLACK_URL}"` of a channel."""
        return self._secret_variables

    def origin(self, setting: str) -> str:
        """Where a value came from: `default`, `environment NAME` or `file PATH`.

        Args:
            setting: Dotted name, such as `runtime.default_backend`.
        """
        return self._origins.get(setting, "default")

    def sealer(self, folder: Path) -> _core.Sealer:
        """What seals the secret keys of a state folder, opened as this configuration says; errors as of `open_sealer`.

        Args:
            folder: The state folder.

        Raises:
            NotFoundError: There is a ledger and no key: new ones would sign what others have signed.
        """
        from creto.crypto import open_sealer

        # In this order: whoever makes the folder at this moment makes the key before the ledger.
        if any(folder.glob("ledger/[0-9]*")) and not any(folder.glob("keys/sealing.*")):
            raise NotFoundError(
                f"the state folder `{folder}` has a ledger, and `{folder / 'keys'}` does not have the key that seals "
                "what signs it (`sealing.*`); restore `keys` from the backup, or begin with an empty folder"
            )
        passphrase = self.common.passphrase
        text = passphrase.get_secret_value() if passphrase else None
        return open_sealer(folder / "keys", self.common.keys_sealed_by, text)

    def section_json(self, name: str) -> str:
        """A section as JSON, for its struct in Rust.

        Args:
            name: Such as `runtime`.

        Raises:
            NotFoundError: There is no such section.
        """
        if name not in type(self).model_fields:
            raise NotFoundError(f"there is no section `{name}`{nearest(name, type(self).model_fields)}")
        value = getattr(self, name)
        if isinstance(value, BaseModel):
            return value.model_dump_json()
        return TypeAdapter(list[Any]).dump_json(value).decode()

    def named(self) -> Iterator[tuple[str, Path]]:
        """Every path or pattern that a setting names, after the setting's dotted name."""
        for section, field in type(self).model_fields.items():
            model = field.annotation
            if not (isinstance(model, type) and issubclass(model, BaseModel)):
                continue
            for name, inner in model.model_fields.items():
                extra = inner.json_schema_extra
                if isinstance(extra, Mapping) and extra.get("path"):
                    given = getattr(getattr(self, section), name)
                    for path in given if isinstance(given, list) else [given]:
                        if path is not None:
                            yield f"{section}.{name}", path

    def named_files(self) -> list[Path]:
        """The files that are named, patterns as what they fit now; folders are not among them.

        Raises:
            NotFoundError: A pattern fits none.
        """
        return [path for setting, pattern in self.named() if setting != "runtime.trees" for path in expand(pattern)]

    def values(self) -> Iterator[tuple[str, Any, str]]:
        """Every setting as (dotted name, value for people with secrets masked, origin)."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, BaseModel):
                for inner in type(value).model_fields:
                    yield f"{name}.{inner}", masked(getattr(value, inner)), self.origin(f"{name}.{inner}")
            else:
                yield name, masked(value), self.origin(name)

    def policy_files(self) -> list[tuple[Path, bytes]]:
        """The policy files with what is in them, in the order of the setting and then of their names.

        Raises:
            NotFoundError: A file is not there, or a pattern fits none.
            IntegrityError: One that a trusted `creto.toml` names has changed since it was trusted, or is gone.
        """
        found = self.files("authz.policies", self.authz.policies)
        project = self._project
        if project and self.origin("authz.policies") == f"file {project.path}":
            # A pattern fits fewer files once one is taken away, and that one may have been the forbid.
            read = {str(path.resolve()) for path in (*self.named_files(), project.path)}
            for gone in sorted(set(project.digests) - read - project.single):
                raise IntegrityError(
                    f"`{gone}` was trusted with `{project.path}` and is no longer read; "
                    "put it back, or run `creto config trust`"
                )
        return found

    def files(self, setting: str, patterns: Iterable[Path]) -> list[tuple[Path, bytes]]:
        """The files that a setting's paths and patterns name, with what is in them; errors as for `policy_files`."""
        return [(path, self.read(setting, path)) for pattern in patterns for path in expand(pattern)]

    def read(self, setting: str, path: Path) -> bytes:
        """Reads a file that a setting names; what a project's `creto.toml` names, only as it was when trusted.

        Args:
            setting: Dotted name of the setting.
            path: The file.

        Raises:
            NotFoundError: There is no such file.
            IntegrityError: It changed since it was trusted.
            InvalidInputError: Other users could have changed it, and neither trust nor a signature would show that.
        """
        from creto.config._contents import MOST_NAMED, contents, own
        from creto.config._trust import digest

        project = self._project
        pinned = project is not None and self.origin(setting) == f"file {project.path}"
        signed = bool(self.authz.trusted_keys) and setting in _SIGNED
        try:
            content = contents(path, MOST_NAMED, require=None if pinned or signed else own(path))
        except OSError as error:
            raise NotFoundError(
                f"the file `{path}` that the configuration names cannot be read: {error.strerror}"
            ) from error
        if project is not None and pinned:
            trusted = project.digests.get(str(path.resolve()))
            if trusted != digest(content):
                what = "was not there when" if trusted is None else "has changed since"
                raise IntegrityError(
                    f"`{path}` {what} `{project.path}` was trusted; read it, then run `creto config trust`"
                )
        return content


def expand(pattern: Path) -> list[Path]:
    """The files that a path or pattern names."""
    text = str(pattern)
    if not any(sign in text for sign in "*?["):
        return [pattern]
    base = Path(pattern.anchor or ".")
    found = sorted(
        path for path in base.glob(str(pattern.relative_to(base) if pattern.anchor else pattern)) if path.is_file()
    )
    if not found:
        raise NotFoundError(f"no file fits `{pattern}`, which the configuration names")
    return found


def masked(value: Any) -> Any:
    """A value for people: secrets masked, paths and decimals as text."""
    if isinstance(value, SecretStr):
        return _MASK
    if isinstance(value, BaseModel):
        return {
            name: masked(getattr(value, name)) for name in type(value).model_fields if getattr(value, name) is not None
        }
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def is_reloadable(setting: str) -> bool:
    """True where a running process takes up a change of this setting."""
    section, _, inner = setting.partition(".")
    field = Settings.model_fields[section]
    if inner:
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        field = model.model_fields[inner]
    extra = field.json_schema_extra
    return isinstance(extra, Mapping) and extra.get("reload") is True


def nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """`; did you mean ...?`, or what there is."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean `{found[0]}`?" if found else f"; there are {', '.join(f'`{each}`' for each in known)}"


def problems(error: ValidationError, origins: Mapping[str, str]) -> InvalidInputError:
    """Says every problem of a configuration, each with its setting and where that came from."""
    lines = [_problem(each, origins) for each in error.errors(include_url=False)]
    head = "the configuration cannot be used: " if len(lines) == 1 else "the configuration cannot be used:\n  "
    return InvalidInputError(head + "\n  ".join(lines))


def _problem(error: Any, origins: Mapping[str, str]) -> str:
    location: tuple[str | int, ...] = error["loc"]
    name = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    came = _came_from(location, origins)
    where = f" ({came})" if came else ""
    if error["type"] == "extra_forbidden":
        known = _fields_at(location[:-1])
        return f"`{name}`{where}: no such setting{nearest(str(location[-1]), known)}"
    text = str(error["msg"]).removeprefix("Value error, ")
    text = text[0].lower() + text[1:]
    shown = error.get("input")
    if isinstance(shown, str | int | float | bool) and not is_secret(location):
        text += f", not `{shown}`" if error["type"] != "value_error" else f" (it is `{shown}`)"
    return f"`{name}`{where}: {text}"


def _came_from(location: tuple[str | int, ...], origins: Mapping[str, str]) -> str:
    names = [part for part in location if isinstance(part, str)]
    for length in (2, 1):
        found = origins.get(".".join(names[:length]))
        if found:
            return found
    inner = [origin for name, origin in origins.items() if names and name.startswith(f"{names[0]}.")]
    return inner[0] if inner else ""


def _models_at(location: tuple[str | int, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] = Settings
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return None
        annotation = field.annotation
        arguments = getattr(annotation, "__args__", ())
        candidates = [annotation, *arguments]
        found = next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)
        if found is None:
            return None
        model = found
    return model


def _fields_at(location: tuple[str | int, ...]) -> list[str]:
    model = _models_at(location)
    return list(model.model_fields) if model else []


def is_secret(location: tuple[str | int, ...]) -> bool:
    """Whether a setting is never shown."""
    model = _models_at(location[:-1])
    field = model.model_fields.get(str(location[-1])) if model else None
    return field is not None and _holds_secret(field.annotation)


def _holds_secret(annotation: Any) -> bool:
    """True where a secret is somewhere in a type, with or without what checks it around it."""
    return annotation is SecretStr or any(map(_holds_secret, get_args(annotation)))
