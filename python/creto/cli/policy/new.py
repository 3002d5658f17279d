"""`creto policy new`: begin with a set that is useful as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.errors import InvalidInputError

__all__ = ["command"]


@click.command("new")
@click.argument("name", required=False)
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@json_option
@pass_frame
def command(frame: Frame, name: str | None, folder: Path | None) -> None:
    """Begin with a starter set: policies, schema, tests, assertions and entities. Without a name, list the sets.

    \b
    Example:
      creto policy new coding policies/
    """
    from creto.authz._starter import starter_file, starters

    if name is None:
        rows = []
        for each in starters():
            comment = re.match(r"(?:// ?(.*)\n)+", starter_file(f"{each}.cedar"))
            text = " ".join(line.removeprefix("//").strip() for line in (comment[0] if comment else "").splitlines())
            rows.append([each, text.split(". ")[0].rstrip(".")])
        frame.table(["name", "what it is for"], rows)
        return
    if name not in starters():
        raise InvalidInputError(f"there is no starter set `{name}`; there are {', '.join(starters())}")
    target = folder or Path("policies")
    target.mkdir(parents=True, exist_ok=True)
    entities = [
        {
            "uid": {"type": "Agent", "id": f"spiffe://{frame.settings.common.trust_domain}/agent/example"},
            "attrs": {"role": name},
            "parents": [{"type": "Team", "id": "example"}],
        }
    ]
    files = {
        f"{name}.cedar": starter_file(f"{name}.cedar"),
        f"{name}.toml": starter_file(f"{name}.toml"),
        f"{name}.proofs.toml": starter_file(f"{name}.proofs.toml"),
        "schema.cedarschema": starter_file("schema.cedarschema"),
        "entities.json": json.dumps(entities, indent=2) + "\n",
        "entities.schema.json": starter_file("entities.schema.json"),
    }
    written: list[str] = []
    kept: list[str] = []
    for file, text in files.items():
        path = target / file
        (kept if path.exists() else written).append(str(path))
        if not path.exists():
            path.write_text(text, encoding="utf-8")
    frame.show(
        {"written": written, "kept": kept},
        "\n".join([*(f"wrote {each}" for each in written), *(f"kept {each}" for each in kept)]),
    )
    policies, schema = target / f"{name}.cedar", target / "schema.cedarschema"
    frame.say(f"next: creto policy check {policies} && creto policy test {target / (name + '.toml')}")
    frame.say(
        f'in force by `authz.policies = ["{policies}"]` and `authz.schema_file = "{schema}"` in creto.toml, '
        "once that is trusted: creto config trust"
    )
