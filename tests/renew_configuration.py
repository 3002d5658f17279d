"""Prints docs/configuration.md from the settings themselves, so that it cannot say anything else: `make docs`."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from creto.config import Settings

HEAD = """\
# Configuration

This page is printed from the settings by `make docs`, and a test compares the two.

A setting is looked for in the environment, then in files given by `--config`, then in the one that `CRETO_CONFIG`
names, then in `./creto.toml` if it is trusted, then in `~/.config/creto/*.toml` or `*.yaml`, then in `/etc/creto/`;
else its default holds. In the environment the name is upper case, with `CRETO_` before it and `__` between section and
setting: `CRETO_RUNTIME__DEFAULT_BACKEND=process`; lists and tables are JSON there. Inside files `${NAME}` stands for
that variable of the environment. An unknown name is an error that shows the nearest known one.

`./creto.toml` counts only after `creto config trust` has recorded what it, and the files that it names, hold now.
Whoever changes it afterwards, an agent for instance, makes it count no more. `creto config show` prints every value
with where it came from, `creto config check FILE` tries a file, and `creto config schema` prints the JSON Schema.

Settings marked * are taken up by running processes when a file changes; a file that is not right is refused, and the
old one stays in force.
"""


def main() -> None:
    print(HEAD)
    lists: list[tuple[str, type[BaseModel], bool]] = []
    for name, field in Settings.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            _section(f"[{name}]", model, bool(_extra(field).get("reload")))
        else:
            lists.append((name, next(_models(field.annotation)), bool(_extra(field).get("reload"))))
    for name, model, reload in lists:
        _section(f"[[{name}]]", model, reload)
        for inner in model.model_fields.values():
            for found in _models(inner.annotation):
                _section(f"{name}: each of its `{found.__name__.lower()}s`", found, reload)


def _section(title: str, model: type[BaseModel], reload: bool) -> None:
    print(f"## `{title}`\n" if title.startswith("[") else f"## {title}\n")
    print(f"{_text((model.__doc__ or '').partition('Example:')[0])}\n")
    print("| setting | type | default | meaning |\n|---|---|---|---|")
    for name, field in model.model_fields.items():
        star = " *" if reload or _extra(field).get("reload") else ""
        default = "required" if field.is_required() else _value(field.default)
        print(f"| `{name}`{star} | {_type(field.annotation)} | {default} | {_text(field.description)} |")
    print()


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _text(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"`{value}`"
    return f"`{json.dumps(value, default=str)}`"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models(inner)


def _type(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_type(each) for each in inner if each is not type(None))
    if origin is list:
        return f"list of {_plural(_type(inner[0]))}"
    if origin is dict:
        return "table of texts"
    names = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        Path: "path",
        SecretStr: "secret",
    }
    if annotation in names:
        return names[annotation]
    return {"Decimal": "decimal", "datetime": "time", "Tier": "table"}.get(annotation.__name__, annotation.__name__)


def _plural(name: str) -> str:
    return {"whole number": "whole numbers", "text": "texts", "path": "paths", "table": "tables"}.get(name, name)


if __name__ == "__main__":
    main()
