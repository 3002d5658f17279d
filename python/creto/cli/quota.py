"""`creto quota`: what is limited, how much of it is used, and changes that bind everywhere within a second."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

from creto.cli._bar import bar
from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli._group import Group

if TYPE_CHECKING:
    from creto.config import Quota
    from creto.metering import QuotaEnforcer


@click.group(cls=Group)
def command() -> None:
    """Show and set quotas."""


def _enforcer(frame: Frame) -> tuple[QuotaEnforcer, list[Quota], list[dict[str, Any]]]:
    """The quotas as this process alone would count them from the ledger, those in force, and every count there is."""
    from creto._core import ledger_shards
    from creto.metering import QuotaEnforcer, StoreAuthority
    from creto.metering._open import boosts, effective
    from creto.metering._usage import acts_of, covered, shard_records

    now = time.time_ns() // 1000
    with frame.store() as store:
        with store.read() as tx:
            quotas = effective(tx, frame.settings)
            extra = boosts(tx, now)
        shared = StoreAuthority(store).usage(now)
    quota = QuotaEnforcer.from_settings(frame.settings, quotas)
    ledger = frame.folder / "ledger"
    with bar("counting") as progress:
        for name in ledger_shards(str(ledger)) if ledger.exists() else ():
            total = covered(ledger, name)

            def told(name: str = name, total: int = total) -> Iterator[dict[str, Any]]:
                for number, record in enumerate(shard_records(ledger, name)):
                    if not number % 1_000:
                        progress(name, number, max(total, number))
                    yield record

            quota.replay(list(acts_of(told())))
    for row in extra:
        quota.boost_known(row.scope, row.meter, row.units, row.until)
    # What only other machines used has a count here too, under the limits that hold now.
    ids = [row for row in shared if row["level"] != "agent" or row["name"].startswith("spiffe://")]
    paths = [[row["organisation"], *([row["name"]] if row["level"] != "organisation" else [])] for row in ids]
    quota.replay([(path, {row["meter"]: 0}, now << 12, bytes(16)) for path, row in zip(paths, ids, strict=True)])
    counters = {_count(counter): counter for counter in quota.counters()}
    for row in shared:
        # The ledger has what was used here; the leases also have acts under way, and what other machines used.
        if any(_covers(rule, row) for rule in quota.rules_in_force()):
            counter = counters.setdefault(_count(row), {**row, "boost": 0})
            counter["used"] = max(counter["used"], row["used"])
    return quota, quotas, list(counters.values())


def _count(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("organisation", "level", "name", "meter", "window"))


def _covers(rule: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """True where a quota in force is counted in a row; those of lifted ones stay until their window ends."""
    floor, _, name = rule["scope"].partition(":")
    window = row["window"].partition(" in ")[0]
    return (floor, rule["meter"], rule.get("window", "")) == (row["level"], row["meter"], window) and (
        name in "*" or name == row["name"]
    )


@command.command()
@click.option("--meter", "-m", help="Of this meter only.")
@json_option
@pass_frame
def show(frame: Frame, meter: str | None) -> None:
    """Show every quota that was used, and how far.

    \b
    Example:
      creto quota show --meter tool_calls
    """
    from creto._count import measured
    from creto.errors import NotFoundError
    from creto.metering._period import instant, moment
    from creto.metering._render import bars

    quota, quotas, counters = _enforcer(frame)
    if meter is not None and meter not in {rule["meter"] for rule in quota.rules_in_force()}:
        raise NotFoundError(_none_of(f"`{meter}`", quotas))
    zone = frame.settings.metering.time_zone
    rows = [(counter, counter["used"]) for counter in counters if meter in {None, counter["meter"]}]
    rows.sort(key=lambda row: (row[0]["organisation"], row[0]["meter"], -row[1]))
    columns = ["level", "name", "meter", "window", "used", "limit", "boost", "resets"]
    table = []
    own = f"spiffe://{frame.settings.common.trust_domain}/agent/"
    for counter, used in rows:
        name = counter["name"] if frame.json else counter["name"].removeprefix(own)
        row = [counter["level"], name, counter["meter"], counter["window"], used, counter["limit"], counter["boost"]]
        if not frame.json:
            row[4:] = [units and measured(counter["meter"], units) for units in row[4:]]
        shown = moment if frame.json else instant
        row.append(shown(counter["resets_at"], zone) if counter["resets_at"] else None)
        if not frame.json:
            row.append(bars([used, max(counter["limit"], used, 1)], 10)[0].ljust(10, "·"))
        table.append(row)
    idle = [f"{q.limit} of {_named(q)}" for q in quotas]
    empty = "no quota was used yet" + (f"; there are: {'; '.join(idle)}" if idle else "; there are none")
    if not frame.json:
        columns.append("")
        boosted = columns.index("boost")
        if not any(row[boosted] for row in table):
            columns.pop(boosted)
            table = [[*row[:boosted], *row[boosted + 1 :]] for row in table]
    frame.table(columns, table, empty=empty)


def _named(quota: Quota) -> str:
    """A quota as people speak of it: what it counts, for whom, and how."""
    each = {"organisation": "each organisation", "team": "each team", "agent": "each agent"}
    ways: list[str] = [quota.kind] if quota.kind else []
    ways += [f"by {quota.window}"] if quota.window else []
    counted = quota.meter or f"spent:{quota.currency or 'the configured currency'}"
    return f"{counted} for {each.get(quota.scope, quota.scope)}" + (f" ({', '.join(ways)})" if ways else "")


def _none_of(wanted: str, quotas: list[Quota]) -> str:
    there = "; ".join(_named(one) for one in quotas)
    return f"there is no quota of {wanted}" + (f"; there are: {there}" if there else ": none is set")


def _wrong(item: Any) -> str:
    """What pydantic found, with the option that it is about."""
    said = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return str(said)
    option = str(item["loc"][0])
    name = {"scope": "SCOPE", "meter": "METER", "limit": "LIMIT"}.get(option, "--" + option.replace("_", "-"))
    return f"{name} `{item['input']}`: {said[:1].lower()}{said[1:]}"


@command.command("set")
@click.argument("scope")
@click.argument("meter")
@click.argument("limit")
@click.option("--window", "-w", help="A length such as 90s, 1m, 12h, 7d, or hour, day, week, month, year.")
@click.option(
    "--kind",
    "-k",
    type=click.Choice(["fixed", "sliding", "gcra", "calendar", "concurrent", "cumulative", "money"]),
    help="How it is counted; follows from --window and METER where it is left out.",
)
@click.option("--time-zone", help="Where calendar windows begin.")
@click.option("--burst", type=int, help="How much at once, for gcra.")
@click.option("--overage", type=click.Choice(["deny", "warn"]), default=None, help="What happens beyond the limit.")
@click.option("--currency", help="For money.")
@click.option(
    "--soft",
    type=click.IntRange(0, 100),
    multiple=True,
    callback=lambda _context, _option, percents: sorted(percents) or None,
    help="Give notice at this percentage; may be given again. Else at 50, 80 and 100.",
)
@click.option("--lift", is_flag=True, help="Lift this quota instead.")
@json_option
@pass_frame
def set_(frame: Frame, /, scope: str, meter: str, limit: str, lift: bool, **options: Any) -> None:
    """Set a quota: SCOPE is `team` (each team) or `team:research` (that one); binds in every process within a second.

    A quota that names one stands in place of that of each of its floor by the same meter and window.
    A budget in money (`spent:USD`) counts what acts cost: by the configured prices, and by what they say in their usage
    (`cost:USD`, in billionths) where nothing prices that. One of `cost:USD` counts only what they say.

    \b
    Example:
      creto quota set agent tool_calls 100 --window day
      creto quota set agent:reader tool_calls 500 --window day
      creto quota set organisation spent:USD 25.00 --window month
    """
    from pydantic import ValidationError

    from creto.config import Quota
    from creto.errors import InvalidInputError, NotFoundError
    from creto.metering._open import effective, put_rule

    given = {name: value for name, value in options.items() if value is not None}
    try:
        quota = Quota(scope=scope, meter=meter, limit=Decimal(limit), **given)
    except InvalidOperation:
        raise InvalidInputError(f"limit `{limit}`: write a number") from None
    except ValidationError as error:
        raise InvalidInputError("; ".join(_wrong(item) for item in error.errors())) from None
    with frame.store() as store, store.begin() as tx:
        if lift:
            there = effective(tx, frame.settings)
            if _named(quota) not in map(_named, there):
                raise NotFoundError(_none_of(_named(quota), there))
        key = put_rule(tx, frame.settings, quota, remove=lift)
    said = f"lifted: {_named(quota)}" if lift else f"set: {limit} of {_named(quota)}"
    frame.show({"key": key, "limit": limit, "lifted": lift}, said)


@command.command()
@click.argument("scope")
@click.argument("meter")
@click.argument("units")
@click.option("--for", "length", default="1h", show_default=True, help="How long: 30m, 12h, 7d.")
@json_option
@pass_frame
def boost(frame: Frame, scope: str, meter: str, units: str, length: str) -> None:
    """Allow one scope more for a time, without touching its quota. UNITS of money are in the currency's unit.

    \b
    Example:
      creto quota boost team:research tool_calls 500 --for 2h
      creto quota boost agent:reader spent:USD 20.00 --for 1d
    """
    from creto.metering import QuotaEnforcer
    from creto.metering._open import effective, put_boost
    from creto.metering._period import instant, moment, parse_length
    from creto.metering._rules import scope_under

    more = _units(meter, units)
    now = time.time_ns() // 1000
    until = now + parse_length(length)
    scope = scope_under(frame.settings, scope)
    with frame.store() as store, store.begin() as tx:
        # Tried on the rules in force first, so that a boost of nothing is told at once.
        QuotaEnforcer.from_settings(frame.settings, effective(tx, frame.settings)).boost(scope, meter, more, until)
        made = put_boost(tx, frame.settings, scope, meter, more, until)
    ends = instant(until, frame.settings.metering.time_zone)
    data = {
        "id": made,
        "scope": scope,
        "meter": meter,
        "units": more,
        "until": moment(until, frame.settings.metering.time_zone),
    }
    frame.show(data, f"{scope} may use {units} more of {meter} until {ends}")


def _units(meter: str, text: str) -> int:
    from creto._count import MONEY_SCALE, currency_of
    from creto.errors import InvalidInputError

    try:
        units = Decimal(text) * (MONEY_SCALE if currency_of(meter) else 1)
    except InvalidOperation:
        units = Decimal(0)
    if not units.is_finite() or units <= 0 or units.adjusted() > 27 or units % 1:
        raise InvalidInputError(f"boost of {text}: write a positive number of units; only money can have a fraction")
    return int(units)


@command.command()
@click.argument("path")
@click.argument("usage", nargs=-1, required=True, metavar="METER=UNITS...")
@json_option
@pass_frame
def explain(frame: Frame, path: str, usage: tuple[str, ...]) -> int:
    """Say whether an act would fit: PATH is an agent's name, organisation/team/agent, or a JSON list of names.

    What it would spend is by the prices that have no condition on an action or a resource.

    \b
    Example:
      creto quota explain reader tool_calls=1
      creto quota explain acme/research/reader tool_calls=1
    """
    from creto._count import SPENT, measured
    from creto.errors import InvalidInputError
    from creto.metering._spending import Spending

    names = _names(frame, path)
    wanted: dict[str, int] = {}
    for pair in usage:
        meter, sign, units = pair.partition("=")
        if not sign or not re.fullmatch("[0-9]{1,19}", units):
            raise InvalidInputError(f"usage `{pair[:60]}`: write METER=UNITS, such as tool_calls=1, below 2^63")
        wanted[meter] = int(units)
    quota, _, there = _enforcer(frame)
    spending = Spending.under(frame.settings, quota.rules_in_force())
    if spending is not None and not any(meter.startswith(SPENT) for meter in wanted):
        wanted = spending.of(names, {"agent": names[-1]}, wanted, time.time_ns() // 1000)
    counters = [c for c in there if c["name"] in names and c["meter"] in wanted]
    full = [c for c in counters if c["used"] + wanted[c["meter"]] > c["limit"]]
    bound = [c for c in full if any(_covers(rule, c) and rule["overage"] == "deny" for rule in quota.rules_in_force())]
    refusal = quota.explain(names, wanted) or next(iter(bound), None)
    if frame.json:
        frame.show({"fits": refusal is None, "refusal": refusal, "counters": counters})
    else:
        for counter in counters:
            asked = wanted[counter["meter"]]
            fits = counter["used"] + asked <= counter["limit"]
            used, limit, left = (
                measured(counter["meter"], units)
                for units in (counter["used"], counter["limit"], counter["limit"] - counter["used"])
            )
            what = f"{counter['level']} {counter['name']}: {counter['meter']} ({counter['window']})"
            frame.say(f"{'ok  ' if fits else 'FULL'} {what}: {used} of {limit} used, {left} left")
        if not counters:
            frame.say(f"no quota counts {', '.join(wanted)} here")
        frame.say(
            "it fits" if refusal is None else f"it does not fit: {refusal['level']} `{refusal['name']}` has no room"
        )
    return 0 if refusal is None else 4


def _names(frame: Frame, path: str) -> list[str]:
    from creto.errors import InvalidInputError
    from creto.nhi._names import agent_id

    if path.startswith("["):
        try:
            names = json.loads(path)
        except ValueError as error:
            raise InvalidInputError(f"path `{path}` is no JSON list of names: {error}") from None
        if not names or not all(isinstance(name, str) and name for name in names):
            raise InvalidInputError(f'path `{path}`: write names, as ["acme", "research", "reader"]')
        return list(names)
    head, sign, agent = path.partition("spiffe://")
    domain = frame.settings.common.trust_domain
    above = [name for name in head.split("/") if name]
    if sign:
        return [*above, sign + agent]
    if len(above) > 2:  # acts are counted under an agent's whole id
        return [*above[:-1], agent_id(above[-1], domain)]
    return _path_of(frame, agent_id(path, domain)) or above if "/" not in path else above


def _path_of(frame: Frame, agent: str) -> list[str] | None:
    """The names that an agent of this state folder is counted under; None where there is none."""
    from sqlalchemy import select

    from creto.store.tables import agents

    with frame.store() as store, store.read() as tx:
        found = tx.all(select(agents.c.path).where(agents.c.id == agent))
    return [*(found[0].path or [frame.settings.common.trust_domain]), agent] if found else None
