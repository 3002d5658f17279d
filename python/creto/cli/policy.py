"""`creto policy`: check, test, explain, analyse, replay, and begin policy sets."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.errors import InvalidInputError

if TYPE_CHECKING:
    from creto import _core

__all__ = ["command"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Check, test, replay and analyse policies."""


def _schema(path: Path | None) -> str:
    from creto.authz import starter_schema

    return path.read_text(encoding="utf-8") if path else starter_schema()


def _engine(files: Sequence[Path], schema: Path | None, entities: Path | None) -> _core.PolicyEngine:
    from creto import _core

    engine = _core.PolicyEngine()
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    engine.install(text, _schema(schema), entities.read_text(encoding="utf-8") if entities else "[]")
    return engine


def _caret(text: str, finding: dict[str, Any]) -> list[str]:
    """The line that a finding is about, and a caret under it."""
    if finding["line"] is None:
        return []
    lines = text.splitlines() or [""]
    line = lines[min(finding["line"], len(lines)) - 1]
    column = finding["column"]
    length = max(1, min(finding["length"] or 1, len(line) - column + 1))
    number = str(finding["line"])
    return [f"  {number} | {line}", f"  {' ' * len(number)} | {' ' * (column - 1)}{'^' * length}"]


@command.command("check")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--schema", type=_FILE, help="The schema; that of the starter sets by default.")
@click.option("--entities", type=_FILE, help="Entities in Cedar's JSON.")
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@json_option
@pass_frame
def check(frame: Frame, files: tuple[Path, ...], schema: Path | None, entities: Path | None, strict: bool) -> None:
    """Parse, validate against the schema, and look for what may not mean what it says.

    \b
    Example:
      creto policy check policies/*.cedar --schema schema.cedarschema
    """
    from creto import _core

    found: list[dict[str, Any]] = []
    given = entities.read_text(encoding="utf-8") if entities else "[]"
    schema_text = _schema(schema)
    for file in files:
        text = file.read_text(encoding="utf-8")
        for finding in _core.policy_findings(text, schema_text, given):
            found.append({"file": str(file), **finding})
            if frame.json:
                continue
            place = f":{finding['line']}:{finding['column']}" if finding["line"] else ""
            color = "red" if finding["severity"] == "error" else "yellow"
            word = click.style(finding["severity"], fg=color)
            frame.say(f"{file}{place}: {word} [{finding['rule']}]: {finding['message']}")
            source = text if finding["rule"] not in ("schema", "entities") else ""
            for line in _caret(source, finding) if source else []:
                frame.say(line)
            if finding["help"]:
                frame.say(f"  help: {finding['help']}")
    errors = sum(finding["severity"] == "error" for finding in found)
    warnings = len(found) - errors
    if frame.json:
        frame.show(found)
    else:
        frame.say(f"{len(files)} file{'s' * (len(files) != 1)}: {errors} errors, {warnings} warnings")
    if errors or (strict and warnings):
        raise click.exceptions.Exit(1)


@command.command("test")
@click.argument("tables", nargs=-1, required=True, type=_FILE)
@json_option
@pass_frame
def test(frame: Frame, tables: tuple[Path, ...]) -> None:
    """Ask the requests of a table (TOML or YAML), compare the answers, and show what no case reached.

    \b
    Example:
      creto policy test policies/coding.toml
    """
    from creto.authz._cases import Table

    failed = 0
    report: list[dict[str, Any]] = []
    for path in tables:
        table = Table.load(path, trust_domain=frame.settings.common.trust_domain)
        results, coverage = table.run()
        for result in results:
            mark = click.style("ok    ", fg="green") if result.passed else click.style("FAILED", fg="red")
            frame.say(f"{mark} {result.case.name}: {result.outcome}, {result.why}")
            if not result.passed:
                failed += 1
                wanted = result.case.expect + (f" by `{result.case.policy}`" if result.case.policy else "")
                frame.say(f"       expected {wanted}")
        decided = sum(coverage.policies.values())
        both = len(coverage.conditions) - len(coverage.one_sided)
        frame.say(
            f"{path}: {sum(result.passed for result in results)} of {len(results)} cases pass; "
            f"{decided} of {len(coverage.policies)} policies decided a case, "
            f"{both} of {len(coverage.conditions)} conditions were seen true and false"
        )
        for name in coverage.idle:
            frame.say(f"  no case reaches `{name}`")
        for policy, text, seen in coverage.one_sided:
            frame.say(f"  `{policy}`: seen {seen} only: {_short(text)}")
        report.append(
            {
                "table": str(path),
                "cases": [
                    {
                        "name": result.case.name,
                        "expect": result.case.expect,
                        "outcome": result.outcome,
                        "why": result.why,
                        "passed": result.passed,
                    }
                    for result in results
                ],
                "idle_policies": coverage.idle,
                "one_sided_conditions": [
                    {"policy": policy, "text": text, "seen": seen} for policy, text, seen in coverage.one_sided
                ],
            }
        )
    if frame.json:
        frame.show(report)
    if failed:
        raise click.exceptions.Exit(1)


def _short(text: str, most: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."


@command.command("explain")
@click.argument("agent")
@click.argument("action")
@click.argument("resource")
@click.option("--context", default="{}", help="The circumstances, as a JSON object.")
@click.option("--policies", "files", multiple=True, type=_FILE, help="Policy files; the configured ones by default.")
@click.option("--schema", type=_FILE, help="The schema.")
@click.option("--entities", type=_FILE, help="Entities in Cedar's JSON.")
@json_option
@pass_frame
def explain(
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

    \b
    Example:
      creto policy explain researcher fs:read .env --context '{"path": ".env"}'
    """
    engine = _engine(files, schema, entities) if files else _configured(frame)
    if "://" not in agent and '"' not in agent:
        agent = f"spiffe://{frame.settings.common.trust_domain}/agent/{agent}"
    try:
        fields = json.loads(context)
    except ValueError as error:
        raise InvalidInputError(f"--context is not a JSON object: {error}") from error
    decision = engine.check_nowait(agent, action, resource, fields)
    explained = engine.explain(agent, action, resource, fields)
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
    asked = "a human has to agree to " + ", ".join(f"`{each}`" for each in decision.policy_ids)
    frame.say(said.get(decision.outcome, asked))
    for policy in explained:
        state = {True: "applies", False: "does not apply", None: "erred"}[policy["holds"]]
        oversight = f", lifted by `{policy['oversight']}`" if policy["oversight"] else ""
        frame.say(f"{policy['effect']} `{policy['policy']}`{oversight}: {state}")
        for condition in policy["conditions"]:
            value = condition["value"] if condition["reached"] else "not reached"
            frame.say(f"  {condition['word']} {_short(condition['text'])}: {value}")


def _configured(frame: Frame) -> _core.PolicyEngine:
    from creto import _core
    from creto.authz import starter, starter_schema

    settings = frame.settings
    files = settings.policy_files()
    policies = "\n".join(text.decode() for _, text in files) if files else starter()
    schema = settings.authz.schema_file
    engine = _core.PolicyEngine()
    engine.install(policies, settings.read("authz.schema_file", schema).decode() if schema else starter_schema(), "[]")
    return engine


@command.command("analyze")
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@click.option("--schema", type=_FILE, help="The schema of both.")
@click.option("--entities", type=_FILE, help="Entities in Cedar's JSON, for both.")
@click.option("--requests", default=50_000, show_default=True, help="How many requests to generate.")
@click.option("--seed", default=1, show_default=True, help="Another seed asks other requests.")
@json_option
@pass_frame
def analyze(
    frame: Frame, old: Path, new: Path, schema: Path | None, entities: Path | None, requests: int, seed: int
) -> None:
    """Say what a change newly allows, newly denies and newly asks, each with a request that shows it.

    Both sets are asked the same generated requests, made of what the policies mention and what they do not. A
    difference that is shown is certain; that none is found is no proof. Exits with 1 where something is newly allowed.

    \b
    Example:
      creto policy analyze policies/old.cedar policies/new.cedar
    """
    before, after = _engine([old], schema, entities), _engine([new], schema, entities)
    report = before.analyze(after, requests, seed)
    counts = {(was, now): count for was, now, count in report["counts"]}
    if frame.json:
        frame.show({**report, "counts": [{"before": b, "after": a, "requests": n} for (b, a), n in counts.items()]})
    else:
        words = {"allow": "allowed", "deny": "denied", "ask": "asked about"}
        frame.say(f"{report['asked']} requests asked of both")
        if not counts:
            frame.say("no difference found (which is no proof that there is none)")
        for (was, now), count in sorted(counts.items(), key=lambda each: each[0][1] != "allow"):
            color = "red" if now == "allow" else None
            frame.say(click.style(f"newly {words[now]}, {words[was]} before: {count} requests", fg=color, bold=True))
            for change in report["changes"]:
                if (change["before"], change["after"]) == (was, now):
                    frame.say(f"  {change['principal']} {change['action']} {change['resource']}")
                    frame.say(f"    context {change['context']}")
                    frame.say(f"    before: {change['reason_before']}; after: {change['reason_after']}")
    if any(now == "allow" for _, now in counts):
        raise click.exceptions.Exit(1)


@command.command("replay")
@click.argument("new", type=_FILE)
@click.option(
    "--from",
    "ledger",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A state folder, or the ledger in it; your own by default.",
)
@click.option("--schema", type=_FILE, help="The schema.")
@click.option("--entities", type=_FILE, help="Entities in Cedar's JSON.")
@click.option("--limit", default=10_000, show_default=True, help="At most so many records, the latest.")
@json_option
@pass_frame
def replay(
    frame: Frame, new: Path, ledger: Path | None, schema: Path | None, entities: Path | None, limit: int
) -> None:
    """Say which of the acts on record another set would have decided otherwise.

    The ledger holds no bodies: circumstances that are not on record are rebuilt from the resource (host, port, path)
    where it tells them, and are missing elsewhere; a set whose conditions ask for more denies such acts here.

    \b
    Example:
      creto policy replay policies/new.cedar --from ~/.local/state/creto/ledger
    """
    from creto.audit import AuditClient

    engine = _engine([new], schema, entities)
    folder = ledger or frame.folder
    client = AuditClient.reading(folder.parent if folder.name == "ledger" else folder)

    async def read() -> list[Any]:
        return await client.query(limit=limit)

    rows, acts = [], 0
    seen: set[Any] = set()
    for record in frame.run(read):
        kind = str(record["kind"])
        if kind not in ("intent", "outcome", "refusal") or record["act"] in seen:
            continue
        seen.add(record["act"])
        acts += 1
        action, resource = record["what"], record["resource"]
        decision = engine.check_nowait(record["who"], action, resource, _rebuilt(action, resource))
        was = "deny" if kind == "refusal" else "allow"
        now = decision.outcome
        if was != now:
            why = decision.reason or ", ".join(decision.policy_ids) or decision.permit
            rows.append([record["who"], action, resource, was, now.replace("oversight", "ask"), why])
    frame.table(
        ["agent", "action", "resource", "was", "would be", "why"], rows, empty="no act would be decided otherwise"
    )
    frame.say(f"{acts} acts, {len(rows)} of them decided otherwise")


def _rebuilt(action: str, resource: str) -> dict[str, Any]:
    """What a resource tells of its circumstances."""
    if action.startswith("fs:"):
        return {"path": resource}
    if action.startswith("http:"):
        from urllib.parse import urlsplit

        return {"host": urlsplit(resource).hostname or ""}
    if action == "net:connect":
        host, _, port = resource.rpartition(":")
        return {"host": host.strip("[]"), "port": int(port)} if port.isdigit() else {"host": resource, "port": 0}
    return {}


@command.command("new")
@click.argument("name", required=False)
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@json_option
@pass_frame
def new(frame: Frame, name: str | None, folder: Path | None) -> None:
    """Begin with a starter set: policies, schema, tests and entities. Without a name, list the sets.

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
    frame.say(f"next: creto policy check {target / (name + '.cedar')} && creto policy test {target / (name + '.toml')}")
