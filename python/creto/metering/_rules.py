"""Quotas as settings hold them, in the form that the native module reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from creto._count import MONEY_SCALE, SPENT, currency_of
from creto.errors import InvalidInputError
from creto.metering._currency import places
from creto.nhi._names import agent_id

if TYPE_CHECKING:
    from creto.config import Settings
    from creto.config._sections import Quota

__all__ = ["rule", "rule_under", "rules_json", "scope_under"]

_PER_PROCESS = {"sliding", "gcra"}


def rule(quota: Quota, time_zone: str, currency: str) -> dict[str, Any]:
    """One rule, from one quota of the settings.

    Args:
        quota: The quota.
        time_zone: Where calendar windows begin that name no zone.
        currency: The currency of money that names none.

    Raises:
        InvalidInputError: A limit that has no whole number of smallest units, or a currency that is none, or not the
            meter's.
    """
    meter, limit = quota.meter, quota.limit
    if limit >= Decimal(2**63):
        raise InvalidInputError(f"limit {quota.limit} of `{meter}`: it must be below {2**63}")
    counted = currency_of(meter)
    if counted is not None:
        places(counted)
    other = quota.kind != "money" if counted is None else counted != quota.currency
    if quota.currency is not None and other:
        raise InvalidInputError(f"`{meter}` is not counted in {quota.currency}: leave the currency out")
    if quota.kind == "money":
        meter = meter or f"{SPENT}{quota.currency or currency}"
    if quota.kind == "money" or counted is not None:
        # Whatever the way it is counted: who writes 25.00 means 25 of the currency, not 25 billionths.
        limit *= MONEY_SCALE
    if limit != limit.to_integral_value():
        raise InvalidInputError(f"limit {quota.limit} of `{meter}`: only money can have a fraction")
    if limit >= Decimal(2**63):
        raise InvalidInputError(f"limit {quota.limit} of `{meter}`: it must be below {2**63}")
    made = {
        "scope": quota.scope,
        "meter": meter,
        "limit": int(limit),
        "window": quota.window,
        "kind": quota.kind,
        "time_zone": quota.time_zone or time_zone,
        "burst": quota.burst,
        "soft": quota.soft,
        "overage": quota.overage,
        "share": "process" if quota.kind in _PER_PROCESS else quota.share,
    }
    return {name: value for name, value in made.items() if value is not None}


def scope_under(settings: Settings, scope: str) -> str:
    """A scope as acts are counted: agents by their whole ids, so that `agent:reader` is that agent."""
    floor, _, name = scope.partition(":")
    return f"agent:{agent_id(name, settings.common.trust_domain)}" if floor == "agent" and name not in "*" else scope


def rule_under(settings: Settings, quota: Quota) -> dict[str, Any]:
    """One rule, as a configuration's trust domain, time zone and currency make it."""
    made = rule(quota, settings.metering.time_zone, settings.metering.currency)
    return {**made, "scope": scope_under(settings, made["scope"])}


def rules_json(quotas: Iterable[Quota], time_zone: str, currency: str) -> str:
    """All rules, as JSON."""
    return json.dumps([rule(quota, time_zone, currency) for quota in quotas])
