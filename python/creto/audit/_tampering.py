"""Changes a copy of a ledger, to see that this is found out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from creto.audit._client import AuditClient
from creto.errors import IntegrityError

if TYPE_CHECKING:
    from creto import _core

__all__ = ["tampered_copy"]


async def tampered_copy(ledger: Path, copy: Path, keys: Sequence[_core.VerifyingKey]) -> str:
    """What the verifier says of a copy of a ledger in which one byte of a record was changed; empty if it says nothing.

    Args:
        ledger: The ledger's folder, which stays as it is.
        copy: Where the copy goes; what was there goes.
        keys: Public keys that are trusted.

    Example:
        >>> import tempfile, creto
        >>> from creto.audit import trusted_keys
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     _ = layer.perform_blocking(layer.agent("researcher"), "tool:call", "add", lambda: 1 + 1)
        ...     _ = layer.call_blocking(layer.parts.audit.verify)
        ...     state, copy = layer.parts.folder, Path(tempfile.mkdtemp())
        ...     "does not hash to its leaf" in layer.call_blocking(
        ...         tampered_copy, state / "ledger", copy, trusted_keys(state)
        ...     )
        True
    """
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ledger, copy / "ledger")
    # The largest: no later file stands in its place.
    bundles = (file for file in (copy / "ledger").glob("*/tile/entries/**/*") if file.is_file())
    bundle = max(bundles, key=lambda file: file.stat().st_size)
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.write_bytes(content)
    try:
        await AuditClient.reading(copy).verify(keys)
    except IntegrityError as found:
        return str(found)
    return ""
