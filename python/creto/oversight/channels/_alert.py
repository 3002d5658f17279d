"""What a channel says of a quota that runs low: a fact, which nobody answers."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from creto._count import measured
from creto._plain import plain, short

__all__ = ["Alert"]


@dataclass(frozen=True, slots=True)
class Alert:
    """A quota of which so many percent are used.

    Args:
        level: `organisation`, `team` or `agent`.
        name: Whose quota.
        meter: Of what.
        window: Over what time, as quotas write it.
        limit: In the meter's smallest unit.
        used: Likewise.
        percent: Which of the percentages that were asked for was reached.
        at: Microseconds since the epoch.
        window_start: When the window began; 0 where it has none.

    Example:
        >>> alert = Alert("team", "research", "tool_calls", "day", 100, 80, 80, 1_795_521_600_000_000)
        >>> alert.title
        'team research has used 80 % of its tool_calls (day)'
    """

    level: str
    name: str
    meter: str
    window: str
    limit: int
    used: int
    percent: int
    at: int
    window_start: int = 0

    @property
    def id(self) -> str:
        """The same for every process that notices, and for no other window: 32 hexadecimal digits."""
        parts = (self.level, self.name, self.meter, self.window, self.limit, self.percent, self.window_start)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    @property
    def title(self) -> str:
        """One line."""
        window = f" ({plain(self.window, most=80)})" if self.window else ""
        whose, meter = f"{plain(self.level, most=20)} {short(self.name)}", plain(self.meter, most=80)
        return f"{whose} has used {self.percent} % of its {meter}{window}"

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Names and values, for people."""
        when = dt.datetime.fromtimestamp(self.at / 1e6, dt.UTC)
        return [
            ("Name", plain(self.name, most=200)),
            ("Meter", plain(self.meter, most=120)),
            ("Used", f"{measured(self.meter, self.used)} of {measured(self.meter, self.limit)}"),
            ("Window", plain(self.window, most=80) or "-"),
            ("At", f"{when:%Y-%m-%d %H:%M} UTC"),
        ]

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {name: getattr(self, name) for name in ("id", *self.__slots__)}

    @classmethod
    def of(cls, notice: Mapping[str, Any], window_start: int) -> Alert:
        """From a notice of the quota."""
        names = ("level", "name", "meter", "window", "limit", "used", "percent", "at")
        return cls(**{name: notice[name] for name in names}, window_start=window_start)
