"""JSON that somebody else wrote: every way in which it cannot be read is one error."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["json_value"]


def json_value(text: str | bytes, **options: Any) -> Any:
    """What JSON says.

    Args:
        text: The JSON.
        options: As of `json.loads`.

    Raises:
        ValueError: It is no JSON, or nested too deeply to be read.

    Example:
        >>> json_value("[" * 100_000)
        Traceback (most recent call last):
        ...
        ValueError: it is nested too deeply
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
