"""How values that are neither JSON's own nor containers are spelt in an act's document; the native module asks here."""

from __future__ import annotations

import datetime as dt
import decimal
import ipaddress

__all__ = ["spell"]


def spell(value: object) -> tuple[str, str] | None:
    """Spells a value as an extension of the policy language: its constructor and its text.

    Args:
        value: Anything.

    Returns:
        The pair, or None where the value has no stated encoding: times without a zone, NaN, and every other class.

    Example:
        >>> import decimal
        >>> spell(decimal.Decimal("12.50"))
        ('decimal', '12.5')
    """
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            return None
        text = f"{value:f}"
        if "." in text:
            text = text.rstrip("0").rstrip(".")
        return "decimal", "0" if text in ("-0", "") else text
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            return None
        return "datetime", value.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, dt.date):
        return "datetime", value.isoformat()
    if isinstance(value, dt.timedelta):
        return "duration", f"{value // dt.timedelta(microseconds=1)}us"
    if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network)):
        # As policies know it: a socket takes `::ffff:127.0.0.1` to where `127.0.0.1` leads.
        return "ip", str(getattr(value, "ipv4_mapped", None) or value)
    return None
