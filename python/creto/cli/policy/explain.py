"""`creto policy explain`: how an act would be decided, and why, in words."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from creto._circumstances import circumstances
from creto._foreign import json_value
from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli.policy._sets import FILE, configured_engine, engine, principal, short
from creto.errors import InvalidInputError

__all__ = ["command"]


@click.command("explain")
@click.argument("agent")
@click.argument("action")
@click.argument("resource")
@click.option("--context", default="{}", help="The circumstances, as a JSON object.")
@click.option("--policies", "files", multiple=True, type=FILE, help="Policy files; the configured ones by default.")
@click.option("--schema", type=FILE, help="The schema.")
@click.option("--entities", type=FILE, help="Entities in Cedar's JSON.")
@json_option
@pass_frame
def command(
    frame: Frame,
    agent: str,
    action: str,
    resource: str,
    context: str,
    files: tuple[Path, ...],
    schema: Path | None,
    entities: Path | None,
) -> None:
    """Say how an act would be decided, and why: each policy that fits, each of its conditions with its value.

    What the resource tells (host, port, path) is in the context by itself. A decimal is written as 12.5 or as
    {"decimal": "12.5"}, and likewise an `ip`, a `datetime` and a `duration`.

    \b
    Example:
      creto policy explain researcher fs:read .env
      creto policy explain bookkeeper tool:call send_money --context '{"amount": 25.5}'
    """
    from creto.authz._cases import written

    asked = engine(files, schema, entities) if files else configured_engine(frame)
    try:
        fields = json_value(context, parse_float=Decimal)
        # An unpaired surrogate, in JSON or in an argument that was not UTF-8, is no text.
        json.dumps([agent, action, resource, fields], ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise InvalidInputError("a name or a value of the request is not text in UTF-8") from None
    except ValueError as error:
        raise InvalidInputError(f"--context is not a JSON object: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidInputError("--context is not a JSON object: write it as '{\"name\": value}'")
    fields = circumstances(action, resource, {name: written(value) for name, value in fields.items()}) or {}
    who = principal(frame, agent)
    decision = asked.check_nowait(who, action, resource, fields)
    explained = asked.explain(who, action, resource, fields)
    if frame.json:
        frame.show(
            {
                "outcome": decision.outcome,
                "reason": decision.reason,
                "policy_ids": decision.policy_ids,
                "permit": decision.permit,
                "policies": explained,
            }
        )
        return
    said = {"allow": f"allowed by `{decision.permit}`", "deny": f"denied: {decision.reason}"}
    humans = "a human has to agree to " + ", ".join(f"`{each}`" for each in decision.policy_ids)
    frame.say(said.get(decision.outcome, humans))
    for policy in explained:
        state = {True: "applies", False: "does not apply", None: "erred, and so the act is denied"}[policy["holds"]]
        if policy["holds"] is None and policy["effect"] == "permit":
            state = "erred, and so it permits nothing"
        oversight = f", lifted by `{policy['oversight']}`" if policy["oversight"] else ""
        frame.say(f"{policy['effect']} `{policy['policy']}`{oversight}: {state}")
        for condition in policy["conditions"]:
            frame.say(f"  {_told(condition)}")


def _told(condition: dict[str, Any]) -> str:
    text = f"{condition['word']} {short(condition['text'])}"
    if not condition["reached"]:
        return f"{text}: not reached"
    given = "; ".join(f"{path} is {short(value, 60)}" for path, value in condition["given"])
    return f"{text}: {condition['value']}" + (f" ({given})" if given else "")
