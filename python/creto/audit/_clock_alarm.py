"""The alarm on clocks: a wall clock that was stepped, or a time from elsewhere that cannot be, is told and recorded."""

from __future__ import annotations

import logging
import threading

from creto import _core
from creto.errors import CretoError

__all__ = ["ClockAlarm"]

_log = logging.getLogger("creto.clock")
_LOOK = 1.0  # seconds


class ClockAlarm:
    """One thread of a process that holds the folder's clock against the wall clock, and tells of what is new.

    Time itself goes on all the same, and never back: the alarm is for whoever keeps the machine's clock.

    Args:
        clock: The folder's.
        ledger: Where it is recorded, by every process that sees it.
    """

    def __init__(self, clock: _core.HybridLogicalClock, ledger: _core.Ledger) -> None:
        self._clock, self._ledger = clock, ledger
        self._steps, _, self._refused = clock.jumps()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="creto-clock-alarm", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, once it has looked for the last time."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK):
            self._look()
        self._look()

    def _look(self) -> None:
        self._clock.now()  # a step shows once somebody asks for the time
        steps, last, refused = self._clock.jumps()
        if steps > self._steps:
            self._tell("clock:step", f"the wall clock was stepped by {last:+.0f} s")
        if refused > self._refused:
            count = refused - self._refused
            self._tell("clock:refused", f"not taken over from elsewhere, more than a minute ahead: {count} times")
        self._steps, self._refused = steps, refused

    def _tell(self, what: str, why: str) -> None:
        _log.warning("%s; `creto doctor` says how the folder's clock stands", why)
        try:
            self._ledger.enqueue({"who": "creto", "what": what, "resource": "clock", "why": why})
        except CretoError as error:
            _log.warning("that could not be recorded: %s", error)
