"""The enforcer of quotas: counted in Rust, in the caller's process."""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from creto import _core
from creto.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy

    from creto.config import Settings
    from creto.config._sections import Quota
    from creto.metering._leases import Leases
    from creto.metering._spending import Spending

__all__ = ["Chains", "QuotaEnforcer", "Reservation"]

Reservation = _core.Reservation
T = TypeVar("T")

_living: weakref.WeakSet[QuotaEnforcer] = weakref.WeakSet()


class QuotaEnforcer(_core.QuotaEnforcer):
    """Counts before the act, along the whole path of who acts for whom, on all quotas or on none.

    Args:
        rules: What is limited: dicts with `scope` (`team`, `team:research`), `meter`, `limit`, and optionally `window`
            (`1m`, `day`), `kind`, `time_zone`, `burst`, `soft`, `overage`, `share`.
        hold_seconds: How long a reservation is held that nobody settles.

    Raises:
        InvalidInputError: A rule that has no valid reading; the text names it.

    Example:
        >>> from creto.metering import QuotaEnforcer
        >>> quota = QuotaEnforcer([{"scope": "team", "meter": "tool_calls", "limit": 2, "window": "day"}])
        >>> path = ["acme", "research", "spiffe://acme.test/agent/reader"]
        >>> with quota.reserve_nowait(path, {"tool_calls": 1}) as held:
        ...     held.commit({"tool_calls": 2})
        >>> quota.explain(path, {"tool_calls": 1})["used"]
        2
    """

    leases: Leases | None
    """What supplies it with units of shared quotas, where anything does."""
    spending: Spending | None
    """What works out what acts spend, where a quota that a layer counts is on that."""
    _shared: bool
    _rules: list[dict[str, Any]]

    def __new__(cls, rules: Iterable[Mapping[str, Any]] = (), *, hold_seconds: float = 900.0) -> Self:
        rules = [dict(rule) for rule in rules]
        made = cast(Self, super().__new__(cls, _json(rules), hold_seconds=hold_seconds))
        made.leases = None
        made.spending = None
        made._shared = False
        made._rules = [{"share": "process", **rule} for rule in rules]
        _living.add(made)
        return made

    @classmethod
    def from_settings(cls, settings: Settings, quotas: Iterable[Quota] | None = None, *, shared: bool = False) -> Self:
        """The enforcer that the settings describe.

        Args:
            settings: The configuration.
            quotas: In place of the settings' own.
            shared: True where `Leases` will supply it; else every rule counts in this process alone.
        """
        rules = _rules(settings, quotas, shared)
        spending = _spending(settings, rules) if shared else None
        made = cls(rules)
        made._shared, made.spending = shared, spending
        return made

    def rules_in_force(self) -> list[dict[str, Any]]:
        """The rules, as they were given last."""
        return [dict(rule) for rule in self._rules]

    def install_settings(self, settings: Settings, quotas: Iterable[Quota] | None = None) -> None:
        """Takes over other quotas; counts go on where only a limit changed.

        Args:
            settings: The configuration.
            quotas: In place of the settings' own.
        """
        rules = _rules(settings, quotas, self._shared)
        # First what can be refused, so that all of it is taken over or none.
        spending = _spending(settings, rules) if self._shared else None
        self.install(_json(rules))
        self._rules, self.spending = rules, spending

    async def check_quota(self, path: Sequence[str], usage: Mapping[str, int]) -> None:
        """Raises where `usage` would not fit on every quota along `path`; takes nothing.

        Args:
            path: Names, organisation first, then teams, the agent, and those that it acts for.
            usage: Quantities by meter, in the meter's smallest unit.

        Raises:
            QuotaExceededError: It would not; the text names the quota, `retry_after` is when there is room, in seconds.

        Example:
            >>> import anyio
            >>> from creto.metering import QuotaEnforcer
            >>> anyio.run(QuotaEnforcer([]).check_quota, ["acme"], {"tool_calls": 1})
        """
        self.check_quota_nowait(path, dict(usage))

    async def reserve(self, path: Sequence[str], usage: Mapping[str, int]) -> Reservation:
        """Holds `usage` on every quota along `path`; leases units first where there are none left here.

        Args:
            path: Names, organisation first.
            usage: Quantities by meter, in the meter's smallest unit.

        Raises:
            QuotaExceededError: It does not fit.
        """
        wanted = dict(usage)
        return await self.enter(lambda: self.reserve_nowait(path, wanted))

    async def enter(self, take: Callable[[], T]) -> T:
        """Calls `take`; where it is refused for lack of leased units, leases some and calls it again.

        Args:
            take: What takes or reserves units here, such as a gate's `enter`.

        Raises:
            QuotaExceededError: There is no room.
        """
        if self.leases is None:
            return take()
        taken: T = await self.leases.supply_async(take)
        return taken

    def boost_known(self, scope: str, meter: str, units: int, until: int) -> None:
        """Allows one scope more, where a quota lies on it; a boost whose quota was lifted changes nothing.

        Args:
            scope: Whom, as `team:research`.
            meter: Of what.
            units: How many more, in the meter's smallest unit.
            until: Microseconds since the epoch.
        """
        with contextlib.suppress(InvalidInputError):
            self.boost(scope, meter, units, until)

    def close(self) -> None:
        """Gives back what is leased and was not spent."""
        if self.leases is not None:
            self.leases.close()

    @staticmethod
    def short(error: BaseException) -> bool:
        """True where a refusal is for lack of leased units, not of room: `quota.leases.supply` gets some."""
        return _core.NO_UNITS_LEASED in getattr(error, "context", ())

    def chains(self, meter: str, paths: Iterable[Sequence[str]]) -> Chains:
        """Looks many paths up once, for arrays of checks.

        Args:
            meter: What is counted.
            paths: Their number is their place.

        Example:
            >>> import numpy
            >>> from creto.metering import QuotaEnforcer
            >>> quota = QuotaEnforcer([{"scope": "agent", "meter": "requests", "limit": 2}])
            >>> chains = quota.chains("requests", [("acme", "team", "a"), ("acme", "team", "b")])
            >>> chains.take(numpy.array([0, 0, 0, 1], dtype=numpy.uint32)).tolist()
            [True, True, False, True]
        """
        return Chains(self, meter, paths)


class Chains:
    """Paths that were looked up once; made by `QuotaEnforcer.chains`."""

    def __init__(self, quota: QuotaEnforcer, meter: str, paths: Iterable[Sequence[str]]) -> None:
        self._batch = quota.batch()
        for path in paths:
            self._batch.add(path, meter)

    def __len__(self) -> int:
        return len(self._batch)

    def take(
        self, which: numpy.ndarray[Any, Any], units: int | numpy.ndarray[Any, Any] = 1
    ) -> numpy.ndarray[Any, numpy.dtype[numpy.bool_]]:
        """Takes units for each path in turn, all or nothing for each.

        Args:
            which: Numbers of paths, shape (n,), uint32.
            units: How many for each: one number, or shape (n,), uint64.

        Returns:
            Shape (n,), bool: True where they fitted and were taken.

        Raises:
            InvalidInputError: A number without a path, lengths that differ, or something else than whole numbers from 0
                on; nothing was taken.
        """
        import numpy as np

        numbers = _whole("which", which, np.uint32)
        amounts = units if isinstance(units, int) and 0 <= units < 2**63 else _whole("units", units, np.uint64)
        return np.frombuffer(self._batch.take(cast(Any, numbers), amounts), dtype=np.bool_)


def _whole(name: str, given: Any, kind: type[numpy.unsignedinteger[Any]]) -> numpy.ndarray[Any, Any]:
    """An array of whole numbers, as the native module reads it: `astype` would make a 1 of 1.9 and a 2^64-1 of -1."""
    import numpy as np

    array = np.asarray(given)
    if array.dtype != kind:
        whole = array.dtype.kind in "iu" or array.size == 0
        if not whole or (array.size and not 0 <= array.min() <= array.max() <= np.iinfo(kind).max):
            raise InvalidInputError(f"`{name}` holds something else than whole numbers from 0 to {np.iinfo(kind).max}")
    return np.ascontiguousarray(array, dtype=kind)


def _json(rules: Iterable[Mapping[str, Any]]) -> str:
    written = []
    for number, rule in enumerate(rules, 1):
        try:
            written.append(json.dumps(rule, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"quota rule {number}: {error}") from None
    return f"[{','.join(written)}]"


def _rules(settings: Settings, quotas: Iterable[Quota] | None, shared: bool) -> list[dict[str, Any]]:
    from creto.metering._rules import rule_under

    rules = [rule_under(settings, quota) for quota in (settings.quotas if quotas is None else quotas)]
    return rules if shared else [{**rule, "share": "process"} for rule in rules]


def _spending(settings: Settings, rules: Iterable[Mapping[str, Any]]) -> Spending | None:
    from creto.metering._spending import Spending

    return Spending.under(settings, rules)


def _fork_over_in_child() -> None:
    _core.quota_fork_over_in_child()
    for quota in _living:
        quota.forked()


os.register_at_fork(
    before=_core.quota_fork_begins, after_in_parent=_core.quota_fork_over, after_in_child=_fork_over_in_child
)
