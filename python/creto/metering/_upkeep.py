"""What metering does by itself while a layer is open: puts usage in order, and tells of quotas that run low."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creto import _core
from creto.errors import CretoError
from creto.metering._evidence import segments

if TYPE_CHECKING:
    from creto.metering._quota import QuotaEnforcer

__all__ = ["Upkeep"]

_log = logging.getLogger("creto.metering")
_LOOK = 1.0


class Upkeep:
    """One thread of a process: adds usage up every so often, and passes the quota's notices on.

    Args:
        quota: Whose notices are passed on.
        ledger: The ledger's folder.
        interval: Seconds between two times that usage is put in order.
        notify: Called, on this thread, with each notice.

    Example:
        >>> import tempfile
        >>> from creto.metering import QuotaEnforcer
        >>> told = []
        >>> rule = {"scope": "team", "meter": "calls", "limit": 2, "window": "1h", "soft": [50]}
        >>> quota = QuotaEnforcer([rule])
        >>> upkeep = Upkeep(quota, Path(tempfile.mkdtemp()) / "ledger", 300, told.append)
        >>> quota.consume_nowait(("acme", "research", "reader"), {"calls": 1})
        >>> upkeep.close()
        >>> [(notice["name"], notice["percent"]) for notice in told]
        [('research', 50)]
    """

    def __init__(
        self,
        quota: QuotaEnforcer,
        ledger: Path,
        interval: float,
        notify: Callable[[Mapping[str, Any]], object],
    ) -> None:
        self._quota, self._notify, self._interval = quota, notify, interval
        self._index = _core.UsageIndex(str(ledger), str(segments(ledger)))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="creto-upkeep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, once the last notices are passed on."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        waited = 0.0
        while not self._stop.wait(_LOOK):
            self._tell()
            waited += _LOOK
            if waited >= self._interval:
                waited = 0.0
                self._advance()
        self._tell()

    def _tell(self) -> None:
        for notice in self._quota.notices():
            try:
                self._notify(notice)
            except CretoError as error:
                _log.warning(
                    "nobody could be told that `%s` runs low on `%s`: %s", notice["name"], notice["meter"], error
                )

    def _advance(self) -> None:
        try:
            self._index.advance()
        except CretoError as error:
            # Whoever invoices or asks for usage does the same, and is told then.
            _log.warning("usage could not be put in order: %s", error)
