"""The enforcer of a state folder: rules of the settings, what `creto quota` set over them, leases from its store."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creto import _core
from creto.metering._authority import DeadLease, StoreAuthority
from creto.metering._leases import Leases
from creto.metering._quota import QuotaEnforcer

if TYPE_CHECKING:
    from creto.config import Live, Settings
    from creto.config._sections import Quota
    from creto.reach import Reach
    from creto.store import Store, Transaction

__all__ = ["TOPIC", "boosts", "effective", "open_quota", "put_boost", "put_rule", "user"]

FOREVER = 2**63 - 1
TOPIC = "quota"
"""What is published when a quota or a boost is set."""


def user() -> str:
    """Who sets something at this machine."""
    return pwd.getpwuid(os.getuid()).pw_name


def _key(quota: Quota, settings: Settings) -> str:
    from creto.metering._rules import rule

    made = rule(quota, settings.metering.time_zone, settings.metering.currency)
    scope = made["scope"] if ":" in made["scope"] else f"{made['scope']}:*"
    return "|".join(str(part) for part in (scope, made["meter"], made.get("window", ""), made.get("kind", "")))


def effective(tx: Transaction, settings: Settings) -> list[Quota]:
    """The quotas in force: those of the settings, with what was set in their place or beside them.

    Args:
        tx: A transaction of the store.
        settings: The configuration.
    """
    from sqlalchemy import select

    from creto.config._sections import Quota
    from creto.store.tables import quota_rules

    found = {_key(quota, settings): quota for quota in settings.quotas}
    for row in tx.all(select(quota_rules).order_by(quota_rules.c.set_at)):
        if row.rule is None:
            found.pop(row.key, None)
        else:
            found[row.key] = Quota.model_validate(row.rule)
    return list(found.values())


def put_rule(tx: Transaction, settings: Settings, quota: Quota, *, remove: bool = False) -> str:
    """Sets a quota, in place of one of the same scope, meter, window and kind; binds everywhere within a second.

    Args:
        tx: A write transaction.
        settings: The configuration.
        quota: The quota.
        remove: True to lift it.

    Returns:
        Its key.
    """
    from sqlalchemy import delete

    from creto.store.tables import quota_rules

    key = _key(quota, settings)
    rule = None if remove else quota.model_dump(mode="json", exclude_unset=True)
    tx.execute(delete(quota_rules).where(quota_rules.c.key == key))
    tx.insert(quota_rules, key=key, rule=rule, set_by=user(), set_at=tx.now)
    what = "quota:lift" if remove else "quota:set"
    _record(tx, settings, what, key, {} if remove else {"limit": str(quota.limit)})
    tx.publish(TOPIC, key)
    return key


def put_boost(tx: Transaction, settings: Settings, scope: str, meter: str, units: int, until: int) -> str:
    """Allows one name more for a time; binds in every process within a second.

    Args:
        tx: A write transaction.
        settings: The configuration.
        scope: Whom, as `team:research`.
        meter: Of what.
        units: How many more, in the meter's smallest unit.
        until: Microseconds since the epoch.

    Returns:
        The boost's id.
    """
    from creto.store.tables import quota_boosts

    boost = os.urandom(8).hex()
    tx.insert(quota_boosts, id=boost, scope=scope, meter=meter, units=units, until=until, set_by=user(), set_at=tx.now)
    _record(tx, settings, "quota:boost", scope, {"meter": meter, "units": str(units), "until": str(until)})
    tx.publish(TOPIC, boost)
    return boost


def _record(tx: Transaction, settings: Settings, what: str, resource: str, detail: dict[str, str]) -> None:
    tx.outbox(
        {
            "who": f"spiffe://{settings.common.trust_domain}/user/{user()}",
            "what": what,
            "resource": resource,
            "why": "set at the command line",
            "kind": "event",
            "detail": detail,
        }
    )


def boosts(tx: Transaction, now: int) -> list[Any]:
    """The boosts that hold.

    Args:
        tx: A transaction of the store.
        now: Microseconds since the epoch.
    """
    from sqlalchemy import select

    from creto.store.tables import quota_boosts

    return tx.all(select(quota_boosts).where(quota_boosts.c.until > now).order_by(quota_boosts.c.set_at))


def _take_over(quota: QuotaEnforcer, authority: StoreAuthority, folder: Path, shard: str, holder: str) -> None:
    """Settles the leases that the last holder of the shard left, and counts its acts where processes count alone."""
    from creto.metering._usage import acts_of, shard_records

    left = authority.left_in(shard, holder)
    alone = any(rule["share"] == "process" for rule in quota.rules_in_force())
    if not left and not alone:
        return
    acts = list(acts_of(shard_records(folder, shard)))
    for lease in left:
        authority.settle(lease, _spent(lease, acts), sure=True)
    if alone:
        quota.replay(acts)


def _spent(lease: DeadLease, acts: Iterable[tuple[list[str], dict[str, int], int, bytes]]) -> int:
    """What the acts of a shard took of the count that a lease is for, in its window; at most what was leased.

    A shard can have had several holders in one window; what all of them used is then taken as this one's, which frees
    too little, never too much.
    """
    organisation, level, name, meter, window = lease.key.split("\x1f")
    spent = 0
    for path, usage, word, _ in acts:
        at = word >> 12
        if path[0] != organisation or name not in path or meter not in usage or at >= lease.end:
            continue
        if lease.end < FOREVER and at < window_start(window, lease.end):
            continue
        if level_of(path, name) == level:
            spent += usage[meter]
    return min(spent, lease.units)


def level_of(path: list[str], name: str) -> str:
    """On which floor a name of a path stands.

    Example:
        >>> path = ["acme", "research", "spiffe://acme.test/agent/reader"]
        >>> [level_of(path, name) for name in path]
        ['organisation', 'team', 'agent']
    """
    place = path.index(name)
    if name.startswith("spiffe://") or place >= 2:
        return "agent"
    return "organisation" if place == 0 else "team"


def window_start(window: str, end: int) -> int:
    """When a window began, from how it is written in a lease's key and when it ends.

    Example:
        >>> window_start("1m", 120_000_000)
        60000000
    """
    name, _, zone = window.partition(" in ")
    start, _ = _core.usage_window(name, end - 1, zone or "UTC")
    return start


def open_quota(
    settings: Settings,
    store: Store,
    *,
    reach: Reach | None = None,
    live: Live | None = None,
    shard: str = "",
    relaxed: bool = False,
    ledger: Path | None = None,
) -> QuotaEnforcer:
    """The enforcer of a state folder; `close` it, so that what it leased and did not spend goes back.

    Args:
        settings: The configuration.
        store: The folder's store.
        reach: Tells it what is set in other processes.
        live: Tells it what changes in the configuration.
        shard: Of the ledger, where this process records its acts.
        relaxed: True where acts may be recorded later than they are done.
        ledger: The ledger's folder, by default that of the store's folder: what this shard's last holder left is
            settled from it, and what is counted by process goes on where it stood.

    Example:
        >>> import tempfile
        >>> from creto.config import load
        >>> from creto.metering import open_quota
        >>> from creto.store import Store
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     quota = open_quota(load(system=False), store)
        ...     quota.close()
    """
    current = settings
    applied: set[str] = set()
    with store.read() as tx:
        quota = QuotaEnforcer.from_settings(settings, effective(tx, settings), shared=True)

    def boost(tx: Transaction) -> None:
        now = time.time_ns() // 1000
        for row in boosts(tx, now):
            if row.id not in applied:
                applied.add(row.id)
                quota.boost_known(row.scope, row.meter, row.units, row.until)

    def renew(_: object = None) -> None:
        with store.read() as tx:
            quota.install_settings(current, effective(tx, current))
            boost(tx)

    def reconfigure(changed: Settings) -> None:
        nonlocal current
        current = changed
        renew()

    with store.read() as tx:
        boost(tx)
    authority = StoreAuthority(store)
    leases = Leases(
        quota,
        authority,
        ttl=settings.metering.quota_cache_ttl_seconds,
        on_outage=settings.metering.on_outage,
        shard=shard,
        relaxed=relaxed,
    )
    folder = ledger or (store.folder / "ledger" if store.folder is not None else None)
    if shard and folder is not None and (folder / shard).exists():
        _take_over(quota, authority, folder, shard, leases.holder)
    if reach is not None:
        reach.on(TOPIC, renew)
    if live is not None:
        live.follow(reconfigure)
    return quota
