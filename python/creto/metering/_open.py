"""The enforcer of a state folder: rules of the settings, what `creto quota` set over them, leases from its store."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creto._user import user, user_id
from creto.metering._authority import StoreAuthority
from creto.metering._leases import Leases
from creto.metering._quota import QuotaEnforcer
from creto.metering._settle import Settlement

if TYPE_CHECKING:
    from creto.config import Live, Settings
    from creto.config._sections import Quota
    from creto.reach import Reach
    from creto.store import Store, Transaction

__all__ = ["TOPIC", "boosts", "effective", "open_quota", "put_boost", "put_rule"]

TOPIC = "quota"
"""What is published when a quota or a boost is set."""


def _key(quota: Quota, settings: Settings) -> str:
    from creto.metering._rules import rule_under

    made = rule_under(settings, quota)
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
    from creto.metering._rules import scope_under
    from creto.store.tables import quota_boosts

    boost, scope = os.urandom(8).hex(), scope_under(settings, scope)
    tx.insert(quota_boosts, id=boost, scope=scope, meter=meter, units=units, until=until, set_by=user(), set_at=tx.now)
    _record(tx, settings, "quota:boost", scope, {"meter": meter, "units": str(units), "until": str(until)})
    tx.publish(TOPIC, boost)
    return boost


def _record(tx: Transaction, settings: Settings, what: str, resource: str, detail: dict[str, str]) -> None:
    tx.outbox(
        {
            "who": user_id(settings.common.trust_domain),
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
        shard: Of the ledger, where this process records its acts and which it holds.
        relaxed: True where acts may be recorded later than they are done.
        ledger: The ledger's folder, by default that of the store's folder: what this shard's last holder left is
            settled from it, what is counted by process goes on where it stood, and so is settled later what other
            processes leave that die.

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

    def install(settings: Settings) -> None:
        with store.read() as tx:
            quota.install_settings(settings, effective(tx, settings))
            boost(tx)
        leases.renew()

    def renew(_: object = None) -> None:
        install(current)

    def reconfigure(changed: Settings) -> None:
        nonlocal current
        install(changed)
        current = changed  # once nothing in it is refused

    with store.read() as tx:
        boost(tx)
    authority = StoreAuthority(store)
    folder = ledger or (store.folder / "ledger" if store.folder is not None else None)
    settlement = Settlement(authority, folder) if folder is not None and (folder / shard).exists() else None
    leases = Leases(
        quota,
        authority,
        ttl=settings.metering.quota_cache_ttl_seconds,
        on_outage=settings.metering.on_outage,
        shard=settlement.origin(shard) if settlement is not None and shard else "",
        relaxed=relaxed,
        settle=settlement,
    )
    if settlement is not None and shard:
        settlement.take_over(quota, shard, leases.holder)
    if reach is not None:
        reach.on(TOPIC, renew)
    if live is not None:
        live.follow(reconfigure)
    return quota
