"""Asks at the terminal: on the terminal itself, so that it works while another program owns standard output.

ENTER is never a yes; neither is anything typed before the question was there to read.
"""

from __future__ import annotations

import os
import re
import select
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import IO

import anyio

from creto._plain import short
from creto.errors import CretoError, InvalidInputError
from creto.oversight._approvers import Approver
from creto.oversight._desk import Desk
from creto.oversight._request import Request

__all__ = ["Terminal"]

_ANSWER = re.compile(r"\s*(yes|no|skip)\b[\s,:]*(.*)", re.IGNORECASE | re.DOTALL)


class Terminal:
    r"""Shows each request at the terminal and takes the answer of the person there.

    Args:
        desk: Where the requests are.
        approver: Who sits there.
        device: The terminal.

    Raises:
        InvalidInputError: There is no terminal.

    Example:
        >>> import asyncio, os, pty, tempfile, creto
        >>> from creto import _core
        >>> ours, theirs = pty.openpty()
        >>> async def main():
        ...     async with creto.open(tempfile.mkdtemp()) as layer:
        ...         desk = layer.parts.desk
        ...         act = _core.Act(layer.agent("buyer").id, "tool:call", "send_money", context={"amount": 250})
        ...         asked = asyncio.create_task(desk.ask(act, ["payments"]))
        ...         terminal = Terminal(desk, desk.approvers.add("ann")[0], device=os.ttyname(theirs))
        ...         asking = asyncio.create_task(terminal.serve())
        ...         shown = b""
        ...         while b"type yes" not in shown:
        ...             shown += await asyncio.to_thread(os.read, ours, 4096)
        ...         os.write(ours, b"yes invoice checked\n")
        ...         (grant,) = (await asked).grants
        ...         asking.cancel()
        ...         return grant.reason
        >>> asyncio.run(main())
        'invoice checked'
    """

    def __init__(self, desk: Desk, approver: Approver, *, device: str = "/dev/tty") -> None:
        self._desk = desk
        self._approver = approver
        try:
            self._fd = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidInputError(f"there is no terminal to ask at: {error.strerror}") from error
        self._seen: set[str] = set()

    async def serve(self) -> None:
        """Asks about every request that waits or comes, one at a time, until cancelled or the terminal hangs up."""
        async with self._desk.changes() as keys:
            wake = anyio.Event()

            async def listen() -> None:
                nonlocal wake
                async for _ in keys:
                    wake.set()

            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                while True:
                    request = await anyio.to_thread.run_sync(self._next)
                    if request is None:
                        await wake.wait()
                        wake = anyio.Event()
                        continue
                    self._seen.add(request.id)
                    try:
                        await self.ask(request)
                    except* (OSError, termios.error):
                        if not self._hung_up():
                            raise
                    if self._hung_up():  # nobody answers here any more; others may
                        group.cancel_scope.cancel()

    def _next(self) -> Request | None:
        mine = [r for r in self._desk.pending() if r.id not in self._seen]
        return next((r for r in mine if any(self._approver.may_answer(p) for p in r.policies)), None)

    async def ask(self, request: Request) -> None:
        """Asks about one request; returns when it is answered here, skipped, or decided elsewhere."""
        precedents = await anyio.to_thread.run_sync(self._desk.precedents_of, request)
        with self._cooked() as tty:
            self._print(tty, request, precedents)
            async with self._desk.changes() as keys, anyio.create_task_group() as group:

                async def elsewhere() -> None:
                    now = await self._until_decided(request, keys)
                    by = f" by {short(now.decided_by)}" if now.decided_by else ""
                    tty.write(f"\r\n  {now.state}{by}, not here\r\n")
                    tty.flush()
                    group.cancel_scope.cancel()

                group.start_soon(elsewhere)
                await self._answered(tty, request)
                group.cancel_scope.cancel()

    async def _until_decided(self, request: Request, keys: AsyncIterator[str]) -> Request:
        now = await anyio.to_thread.run_sync(self._desk.find, request.id)
        while now.open:
            await anext(keys)
            now = await anyio.to_thread.run_sync(self._desk.find, request.id)
        return now

    async def _answered(self, tty: IO[str], request: Request) -> None:
        # What was typed before the question could be read answers something else.
        termios.tcflush(self._fd, termios.TCIFLUSH)
        while True:
            tty.write("  type yes, no or skip (a reason may follow): ")
            tty.flush()
            line = await self._line()
            said = _ANSWER.fullmatch(line)
            if said is None:
                tty.write("  that is no answer; ENTER alone never is one\n")
                continue
            word, reason = said[1].lower(), said[2].strip()
            if word == "skip":
                tty.write(f"  skipped; it still waits: creto approve {request.id[:8]}\n")
                return
            decide = self._desk.approve if word == "yes" else self._desk.deny
            try:
                after = await anyio.to_thread.run_sync(decide, request, self._approver, reason)
            except CretoError as error:
                tty.write(f"  {error}\n")
                return
            tty.write(f"  {'approved, once' if word == 'yes' and not after.open else after.state}\n")
            return

    async def _line(self) -> str:
        typed = b""
        while not typed.endswith((b"\n", b"\r")):
            await anyio.wait_readable(self._fd)
            # No bytes: Ctrl-D, which is no answer, or else the terminal hung up and writing to it fails.
            typed += os.read(self._fd, 4096) or b"\n"
        return typed.decode(errors="replace").rstrip("\r\n")

    def _print(self, tty: IO[str], request: Request, precedents: list[dict[str, object]]) -> None:
        from rich.console import Console

        from creto.oversight._show import panel

        console = Console(file=tty, force_terminal=True, highlight=False, width=min(_columns(self._fd), 110))
        console.print()
        console.print(panel(request, precedents))

    @contextmanager
    def _cooked(self) -> Iterator[IO[str]]:
        """The terminal with lines and echo, whatever the program that owns it has set; given back as it was."""
        before = termios.tcgetattr(self._fd)
        now = list(before)
        now[0] |= termios.ICRNL
        now[1] |= termios.OPOST | termios.ONLCR
        now[3] |= termios.ICANON | termios.ECHO | termios.ISIG
        termios.tcsetattr(self._fd, termios.TCSADRAIN, now)
        try:
            with os.fdopen(os.dup(self._fd), "w", encoding="utf-8", errors="replace") as tty:
                yield tty
        finally:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, before)

    def _hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Closes the terminal."""
        os.close(self._fd)


def _columns(fd: int) -> int:
    try:
        return os.get_terminal_size(fd).columns or 100
    except OSError:
        return 100
