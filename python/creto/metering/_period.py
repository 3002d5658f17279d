"""Periods as people write them: `2026-11`, `2026-11-24`, `last-month`, `2026-11-01..2026-11-15`."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from creto import _core
from creto.errors import InvalidInputError

__all__ = ["instant", "moment", "parse_length", "parse_period", "require_time", "window_began"]

_LAST = 253_402_300_799_999_999
"""The last microsecond of the year 9999, the last one that dates can say."""
_LONGEST = 36_525 * 86_400_000_000
_UNITS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


def require_time(name: str, at: Any, last: int = _LAST) -> None:
    """Does nothing for a time that can be reckoned with.

    Args:
        name: What it is, for the text.
        at: Microseconds since the epoch.
        last: The last that is allowed.

    Raises:
        InvalidInputError: It is no whole number, or lies outside.

    Example:
        >>> require_time("start", 0)
    """
    if isinstance(at, bool) or not isinstance(at, int) or not 0 <= at <= last:
        raise InvalidInputError(f"{name} {str(at)[:40]}: write whole microseconds since the epoch, from 0 to {last}")


def parse_length(text: str) -> int:
    """A length such as `90s`, `12h` or `7d`, in microseconds; at most 100 years.

    Raises:
        InvalidInputError: It is none.

    Example:
        >>> parse_length("2h")
        7200000000
    """
    match = re.fullmatch(r"(\d{1,9})(ms|s|m|h|d)", text)
    if match is None or int(match[1]) == 0:
        raise InvalidInputError(f"length `{text}`: write a number and a unit, such as `90s`, `12h` or `7d`")
    length = int(match[1]) * _UNITS[match[2]]
    if length > _LONGEST:
        raise InvalidInputError(f"length `{text}`: it is longer than 36525 days")
    return length


def _midnight(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1_000_000)


def _ordered(start: int, end: int) -> tuple[int, int]:
    if not 0 <= start < end:
        raise ValueError("it ends before it starts, or lies before 1970")
    return start, end


def parse_period(text: str, time_zone: str, now: int) -> tuple[int, int]:
    """The start and the end of a period, in microseconds since the epoch; the end lies outside of it.

    Args:
        text: `today`, `yesterday`, `this-month`, `last-month`, `2026-11`, `2026-11-24`, `2026-11-01..2026-11-15` (both
            days included), or a length that ends now, such as `24h`.
        time_zone: Whose days and months are meant.
        now: Microseconds since the epoch.

    Raises:
        InvalidInputError: It is none of these.

    Example:
        >>> start, end = parse_period("2026-02", "UTC", 0)
        >>> (end - start) // 86_400_000_000
        28
    """
    zone = ZoneInfo(time_zone)
    today = datetime.fromtimestamp(now / 1e6, zone).date()
    try:
        if text in {"today", "yesterday"}:
            day = today if text == "today" else today - timedelta(days=1)
            return _midnight(day, zone), _midnight(day + timedelta(days=1), zone)
        if text in {"this-month", "last-month"}:
            start, end = _core.usage_window("month", now, time_zone)
            return (start, end) if text == "this-month" else (_core.usage_window("month", start - 1, time_zone))
        if re.fullmatch(r"\d{4}-\d{2}", text):
            first = date.fromisoformat(f"{text}-01")
            return _ordered(_midnight(first, zone), _midnight((first + timedelta(days=32)).replace(day=1), zone))
        if ".." in text:
            one, other = text.split("..", 1)
            last = date.fromisoformat(other) + timedelta(days=1)
            return _ordered(_midnight(date.fromisoformat(one), zone), _midnight(last, zone))
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            day = date.fromisoformat(text)
            return _ordered(_midnight(day, zone), _midnight(day + timedelta(days=1), zone))
        return _ordered(now - parse_length(text), now)
    except (ValueError, OverflowError):
        pass
    raise InvalidInputError(
        f"period `{text}`: write `2026-11`, `2026-11-24`, `2026-11-01..2026-11-15`, `this-month`, `last-month`, "
        "`today`, or a length such as `24h`"
    )


def window_began(window: str, at: int) -> int:
    """When the window of a quota began that holds a time; 0 where it has no beginning.

    Args:
        window: As quotas write it: `1m`, `day`, `month in Europe/Zurich`.
        at: Microseconds since the epoch.

    Example:
        >>> window_began("1m", 119_000_000), window_began("", 5)
        (60000000, 0)
    """
    name, _, zone = window.partition(" in ")
    try:
        return _core.usage_window(name, at, zone or "UTC")[0]
    except InvalidInputError:
        return 0


def moment(micros: int, time_zone: str = "UTC") -> str:
    """A time as programs read it, by ISO 8601, with how far the zone is from UTC.

    Example:
        >>> moment(1_795_820_400_000_000, "Europe/Zurich")
        '2026-11-28T00:00:00+01:00'
    """
    return datetime.fromtimestamp(micros / 1e6, ZoneInfo(time_zone)).isoformat(timespec="seconds")


def instant(micros: int | None, time_zone: str = "UTC") -> str:
    """A time as people read it, to the minute; a dash where there is none."""
    if micros is None:
        return "-"
    return datetime.fromtimestamp(micros / 1e6, ZoneInfo(time_zone)).strftime("%Y-%m-%d %H:%M")
