"""A usage event: what was used, by whom, when; as a CloudEvent, and as the bytes that commitments are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from creto import _core
from creto._plain import is_text
from creto.errors import InvalidInputError

__all__ = ["Place", "UsageEvent", "check_event", "is_name"]

_LEAP_SECOND = re.compile(r"^(.{10}[Tt ]\d\d:\d\d):60(?:\.\d+)?")
Place = tuple[str, int, int]
"""Where an event stands in the ledger: shard, index of the record, position in its batch, or among its meters."""


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """What was used of one meter by one act, or as someone else says.

    Args:
        source: Who says so; ids are unique within a source.
        id: Unique within the source; of what an act used, the act's and the meter's.
        customer: Who pays: the organisation of the path.
        meter: Of what.
        quantity: How much, in the meter's smallest unit; negative for a correction.
        at: Microseconds since the epoch.
        dimensions: What it can be grouped and priced by.
        place: Where it stands in the ledger.

    Example:
        >>> event = UsageEvent("gateway", "req-1", "acme", "pages", 3, 1_764_000_000_000_000, {"team": "research"})
        >>> event.to_cloudevent()["type"], UsageEvent.from_cloudevent(event.to_cloudevent()) == event
        ('creto.usage.pages', True)
    """

    source: str
    id: str
    customer: str
    meter: str
    quantity: int
    at: int
    dimensions: Mapping[str, str] = field(default_factory=dict)
    place: Place = ("", 0, 0)

    def leaf(self) -> bytes:
        """The bytes that a batch and an invoice line commit to: RFC 8785 JSON of all that the event says."""
        own = dict(self.dimensions)
        return bytes(_core.usage_leaf(self.source, self.id, self.customer, self.meter, self.quantity, self.at, own))

    def to_cloudevent(self) -> dict[str, Any]:
        """As a CloudEvents 1.0 event in JSON."""
        from datetime import UTC, datetime

        return {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": f"creto.usage.{self.meter}",
            "subject": self.customer,
            "time": datetime.fromtimestamp(self.at / 1e6, UTC).isoformat().replace("+00:00", "Z"),
            "data": {"meter": self.meter, "quantity": str(self.quantity), "dimensions": dict(self.dimensions)},
        }

    @classmethod
    def from_cloudevent(cls, event: Mapping[str, Any]) -> UsageEvent:
        """From a CloudEvents 1.0 event in JSON.

        Args:
            event: With `id`, `source`, `subject` (who pays), `time`, and data of `meter`, `quantity`, `dimensions`.

        Raises:
            InvalidInputError: Something is missing or has no valid reading; the text names it.

        Example:
            >>> event = UsageEvent("app", "1", "acme", "pages", 3, 1_795_521_600_000_000, {"team": "research"})
            >>> UsageEvent.from_cloudevent(event.to_cloudevent()) == event
            True
        """
        from datetime import datetime

        data = event.get("data") or {}
        if event.get("specversion", "1.0") != "1.0":
            raise InvalidInputError(f"usage event `{event.get('id')}`: `specversion` is not 1.0")
        try:
            quantity = _quantity(data["quantity"])
            # Dates have no leap second: one stays the last moment of its minute, and so of its day and its month.
            time = datetime.fromisoformat(_LEAP_SECOND.sub(r"\1:59.999999", event["time"]))
            dimensions = {_text(name): _text(str(value)) for name, value in (data.get("dimensions") or {}).items()}
            made = cls(
                source=_text(event["source"]),
                id=_text(event["id"]),
                customer=_text(event["subject"]),
                meter=_text(data["meter"]),
                quantity=quantity,
                at=round(time.timestamp() * 1_000_000),
                dimensions=dimensions,
            )
        except KeyError as error:
            raise InvalidInputError(f"usage event without `{error.args[0]}`") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"usage event `{event.get('id')}`: {error}") from error
        if time.tzinfo is None:
            raise InvalidInputError(f"usage event `{made.id}`: `time` needs a zone, such as `2026-01-01T00:00:00Z`")
        return made


def check_event(event: UsageEvent) -> None:
    """Does nothing for an event that can be added up: what a column cannot say wrong, a Python object can.

    Raises:
        InvalidInputError: It cannot; the text names what is wrong.
    """
    for name in ("source", "id", "customer", "meter"):
        if not is_name(getattr(event, name)):
            raise InvalidInputError(f"usage event `{event.id}`: `{name}` has 1 to 1024 characters")
    for name, value in event.dimensions.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidInputError(f"usage event `{event.id}`: dimension `{name}` is not a name with a text")
    if isinstance(event.quantity, bool) or not isinstance(event.quantity, int):
        raise InvalidInputError(f"usage event `{event.id}`: quantity {event.quantity} is not a whole number")
    if not -(2**96) < event.quantity < 2**96:
        raise InvalidInputError(f"usage event `{event.id}`: quantity {event.quantity} is too large")
    if isinstance(event.at, bool) or not isinstance(event.at, int) or not 0 <= event.at < 2**51:
        raise InvalidInputError(f"usage event `{event.id}`: its time is closed, or is none")


def is_name(value: Any) -> bool:
    """True for a text of 1 to 1024 characters that can be recorded: half a surrogate pair cannot.

    Example:
        >>> [is_name(value) for value in ("acme", "", "\\ud800", None)]
        [True, False, False, False]
    """
    return isinstance(value, str) and 0 < len(value) <= 1024 and is_text(value)


def _text(value: Any) -> str:
    """Text as it was sent: an id made of nothing is every nothing's, and an event that shares its id is not charged."""
    if not isinstance(value, str):
        raise TypeError(f"`{value}` is not text")
    value.encode()  # half a surrogate pair has no bytes to record
    return value


def _quantity(value: Any) -> int:
    written = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(written, str) or not re.fullmatch(r"-?[0-9]{1,30}", written):
        raise ValueError(f"the quantity `{str(value)[:40]}` is no whole number in decimal digits")
    return int(written)
