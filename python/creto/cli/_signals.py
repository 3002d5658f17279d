"""The signals that `creto run` hands on to its program."""

from __future__ import annotations

import contextlib
import shutil
import signal
from types import TracebackType
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from creto.runtime import Program

__all__ = ["Signals"]

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """Receives the signals that are for the program, from before its start: none that follows its first word is lost.

    One that comes earlier, as while a human is asked whether the program may start, does what it always does. What was
    ignored when this began stays so, as a hang-up under `nohup`. After it all is as it was.
    """

    def __init__(self) -> None:
        self.program: Program | None = None
        """Whom to tell; to be set in the step that starts it."""
        self._early: signal.Signals | None = None
        self._kept = contextlib.ExitStack()

    def __enter__(self) -> Signals:
        before = {number: signal.getsignal(number) for number in (*_FORWARDED, signal.SIGWINCH)}
        heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
        for number in heard:
            self._kept.callback(signal.signal, number, before[number])
        self._received = self._kept.enter_context(anyio.open_signal_receiver(*heard))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._kept.close()

    async def obey(self) -> None:
        """Does what a signal does that came before the program; for when all is as it was."""
        if self._early is not None:
            signal.raise_signal(self._early)
            await anyio.sleep_forever()  # Ctrl-C cancels this task; the others have ended the process

    async def serve(self, starting: anyio.CancelScope) -> None:
        """Hands them on; the third Ctrl-C ends the program without asking it.

        Args:
            starting: What is cancelled by a signal that comes before the program.
        """
        interrupts = 0
        async for number in self._received:
            if self.program is None:
                if number != signal.SIGWINCH:
                    self._early = number
                    starting.cancel()
                    return
            elif number == signal.SIGWINCH:
                size = shutil.get_terminal_size()
                self.program.resize(size.lines, size.columns)
            else:
                interrupts += number == signal.SIGINT
                self.program.signal(signal.SIGKILL if interrupts >= 3 else number)
