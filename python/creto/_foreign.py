"""Text and JSON that somebody else wrote: every way in which they cannot be read is one error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from creto.errors import InvalidInputError

__all__ = ["json_value", "text_of"]


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


def text_of(path: Path, content: bytes) -> str:
    """The text of a file.

    Args:
        path: Where it is, for the error.
        content: What is in it.

    Raises:
        InvalidInputError: It is not text in UTF-8.
    """
    try:
        return content.decode()
    except ValueError:
        raise InvalidInputError(f"{path}: it is not text in UTF-8") from None
