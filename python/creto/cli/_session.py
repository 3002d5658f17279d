"""One `creto run`: the sandbox, the terminal that the program and the questions share, and the summary at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import click

from creto._count import counted
from creto._plain import plain
from creto.cli._signals import Signals
from creto.cli._summary import changed, ended, refusals
from creto.errors import CretoError, InvalidInputError, UnauthorizedError
from creto.runtime._outside import run_outside

if TYPE_CHECKING:
    from creto.cli._frame import Frame
    from creto.layer import EnablementLayer
    from creto.nhi import Agent
    from creto.oversight import Approver, Desk
    from creto.oversight._request import Request
    from creto.runtime import Box, Change

__all__ = ["Session"]


class Session:
    """What `creto run` does, from the first line to the summary.

    Args:
        frame: State folder and configuration.
        agent: Who the program acts as.
        backend: What isolates; the configuration's unless given.
        workdir: The folder it works in.
        allow: `HOST` or `HOST:PORT` that the person at the command line has agreed to.
        hosts: Names that lead to an address.
        applying: `ask`, `all` or `none`, for changes that policy asks about.
        wait: Seconds to wait for a human elsewhere.
        environment: Variables that are passed on.
    """

    def __init__(
        self,
        frame: Frame,
        *,
        agent: str,
        backend: str | None,
        workdir: Path,
        allow: Sequence[str],
        hosts: dict[str, str],
        applying: str,
        wait: float | None,
        environment: dict[str, str],
    ) -> None:
        self._frame = frame
        self._name = agent
        self._backend = backend
        self._workdir = workdir
        self._allow = set(allow)
        self._hosts = hosts
        self._applying = applying
        self._wait = wait
        self._environment = environment
        self._agreed: set[tuple[str, str]] = set()
        self._quiet = anyio.Event()
        self._quiet.set()

    async def run(self, argv: list[str]) -> int:
        """Runs the program; returns its exit code."""
        import creto

        async with creto.open(state=self._frame.folder, config=self._frame.config) as layer:
            return await self._under(layer, argv)

    async def _under(self, layer: EnablementLayer, argv: list[str]) -> int:
        agent = layer.agent(self._name)
        asking = _has_terminal()
        wait = self._wait if self._wait is not None else (None if asking else 0.0)

        def patience(action: str, resource: str) -> float | None:
            # What was agreed to beforehand is answered here, and at once.
            return _ANSWERED_HERE if self._is_agreed(action, resource) else wait

        begun = time.monotonic()
        async with layer.sandbox(
            agent, self._workdir, backend=self._backend, env=self._environment, hosts=self._hosts, timeout=patience
        ) as box:
            self._say(f"{agent.id} in a sandbox on {box.workdir} ({(time.monotonic() - begun) * 1000:.0f} ms)")
            self._say("in view: this folder and the machine's programs; not your home folder, keys or other files")
            if box.hidden:
                self._say(f"not in view: {_listed(box.hidden)} (policy)")
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._agree, layer.parts.desk, agent)
                if asking:
                    tasks.start_soon(self._ask, layer.parts.desk, box)
                result = await self._program(box, argv, layer.parts.settings.runtime.run_timeout_seconds)
                changes, applied = await self._settle(box)
                tasks.cancel_scope.cancel()
            self._summary(box, result, changes, applied, time.monotonic() - begun, await box.attested())
        return result

    # --- the program --------------------------------------------------------------------------------------------------

    async def _program(self, box: Box, argv: list[str], limit: float | None) -> int:
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        size = shutil.get_terminal_size()
        read, write = os.pipe()
        result = None
        # Files, so that each is closed once, by whoever is first.
        with (
            os.fdopen(read, "rb", buffering=0) as theirs,
            os.fdopen(write, "wb", buffering=0) as ours,
            _raw(terminal),
            Signals() as signals,
        ):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(signals.serve, tasks.cancel_scope)
                signals.program = await box.start(
                    argv,
                    stdin=theirs,
                    stdout=1,
                    stderr=2,
                    terminal=(size.lines, size.columns) if terminal else None,
                )
                theirs.close()
                tasks.start_soon(self._feed, ours)
                with anyio.move_on_after(limit):
                    result = await signals.program.wait()
                tasks.cancel_scope.cancel()
        _restore()
        await signals.obey()
        if result is None:
            from creto.errors import TimeoutError

            raise TimeoutError(f"the program took more than {limit:g} s (`runtime.run_timeout_seconds`) and was ended")
        return result.exit_code

    async def _feed(self, into: FileIO) -> None:
        """Passes standard input on, but not what is typed while a question is on the terminal."""
        os.set_blocking(into.fileno(), False)
        while True:
            await self._quiet.wait()
            try:
                await anyio.wait_readable(0)
            except (OSError, ValueError):
                return await self._feed_file(into)
            if not self._quiet.is_set():
                continue
            data = os.read(0, 65536)
            if not data:
                into.close()
                return None
            if not await _write(into.fileno(), data):
                return None

    async def _feed_file(self, into: FileIO) -> None:
        """As above, for a standard input that cannot be waited for: a file, or nothing at all."""
        while True:
            try:
                data = await anyio.to_thread.run_sync(os.read, 0, 65536)
            except OSError:
                data = b""
            if not data:
                into.close()
                return
            if not await _write(into.fileno(), data):
                return

    # --- humans -------------------------------------------------------------------------------------------------------

    async def _ask(self, desk: Desk, box: Box) -> None:
        """Asks at this terminal, while anybody may answer elsewhere."""
        from creto.oversight import Terminal

        session = self

        class _Shared(Terminal):
            """A terminal that the program uses too: while a question is on it the program neither reads nor writes.

            Else it could write another question over ours, and have a yes to that.
            """

            def _next(self) -> Request | None:
                found = super()._next()
                return None if found is not None and session._is_agreed(found.action, found.resource) else found

            async def ask(self, request: Request) -> None:
                session._quiet = anyio.Event()
                try:
                    await box.hold(True)
                    _restore()
                    # What the program had the terminal say for it arrives now, and is no answer.
                    await anyio.sleep(_ECHO)
                    await super().ask(request)
                finally:
                    session._quiet.set()
                    with anyio.CancelScope(shield=True):
                        await box.hold(False)

        with contextlib.suppress(InvalidInputError, UnauthorizedError):  # no terminal, or others are the approvers
            terminal = _Shared(desk, await anyio.to_thread.run_sync(desk.approvers.operator))
            try:
                await terminal.serve()
            finally:
                terminal.close()

    def _is_agreed(self, action: str, resource: str) -> bool:
        if action == "net:connect":
            host, _, _port = resource.rpartition(":")
            return resource in self._allow or host in self._allow
        return (action, resource) in self._agreed

    async def _agree(self, desk: Desk, agent: Agent, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Answers what the person at the command line has agreed to: by `--allow`, or to all changes together."""
        from creto._process import here

        # Whoever agrees beforehand must be an approver; where nothing was agreed to, it need not be this user.
        operator: Approver | None = await anyio.to_thread.run_sync(desk.approvers.operator) if self._allow else None

        def answer() -> None:
            nonlocal operator
            for request in desk.pending():
                # Another run of the same agent, in another folder, may ask about what has the same name.
                mine = request.agent == agent.id and request.holder == here()
                if mine and self._is_agreed(request.action, request.resource):
                    operator = operator or desk.approvers.operator()
                    said = "--allow" if request.action == "net:connect" else "agreed to together"
                    with contextlib.suppress(CretoError):  # decided elsewhere meanwhile
                        desk.approve(request, operator, f"{said}, on the command line")

        async with desk.changes() as keys:
            task_status.started()
            async for _ in keys:
                await anyio.to_thread.run_sync(answer)

    async def _settle(self, box: Box) -> tuple[list[Change], list[Change]]:
        """Shows what was changed, and carries out what may be."""
        changes = await box.changes()
        if not changes:
            return [], []
        self._say(f"{counted(len(changes), 'changed path')} in {box.workdir}, kept apart so far:")
        apart = run_outside((change.path for change in changes if change.shape != "folder"), box.workdir)
        for line in changed(changes, apart):
            self._say(f"  {line}")
        if self._applying == "none":
            self._say("nothing is carried out (--apply none)")
            return changes, []
        if self._applying == "all" or (len(changes) > 1 and await self._all_together()):
            self._agreed = {("fs:write", change.name) for change in changes if change.path not in apart}
        applied = await box.hooks.changes(changes)
        await box.apply(applied)
        return changes, applied

    async def _all_together(self) -> bool:
        """Asks once about all changes; anything but `all` leaves each to be asked about apart."""
        if not _has_terminal():
            return False
        self._quiet = anyio.Event()
        try:
            answer = await _line("creto: type all to agree to all, ENTER to be asked about each: ")
        finally:
            self._quiet.set()
        return answer.strip().lower() == b"all"

    # --- the last lines -----------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        if not self._frame.json:
            # Names of files and hosts are the program's own: nothing in them may steer the terminal.
            click.echo(f"{click.style('creto:', fg='cyan')} {plain(text)}", err=True)

    def _summary(
        self, box: Box, code: int, changes: list[Change], applied: list[Change], seconds: float, attestation: str | None
    ) -> None:
        denied = [(action, resource, str(error)) for action, resource, error in getattr(box.hooks, "denied", [])]
        if self._frame.json:
            summary: dict[str, Any] = {
                "sandbox": box.id,
                "exit_code": code,
                "seconds": round(seconds, 3),
                "connections": [
                    {"host": c.host, "port": c.port, "scheme": c.scheme, "allowed": c.allowed, "reason": c.reason,
                     "sent": c.sent, "received": c.received, "requests": c.requests}
                    for c in box.connections
                ],
                "connections_before": box.before,
                "changes": [
                    {"path": c.path, "kind": c.kind, "applied": c in applied, "refused": c.refused} for c in changes
                ],
                "hidden": list(box.hidden),
                "denied": [{"action": a, "resource": r, "reason": why} for a, r, why in denied],
                "attestation": json.loads(attestation) if attestation else None,
            }  # fmt: skip
            click.echo(json.dumps(summary), err=True)
            return
        let = sum(1 for c in box.connections if c.allowed)
        refused = len(box.connections) - let + box.before["refused"]
        let += box.before["allowed"]
        self._say(
            f"exit status {code} after {seconds:.1f} s; connections: {let} allowed, "
            f"{refused} refused; changes: {len(applied)} carried out, "
            f"{len(changes) - len(applied)} not"
        )
        others = ((action, resource, why) for action, resource, why in denied if action != "net:connect")
        for line in (*ended(box.connections), *refusals(others)):
            self._say(f"  {line}")
        if any("needs a human to agree" in why for _, _, why in denied):
            self._say(
                "to be asked, run it in a terminal, or give `--wait 60` and answer by `creto approve` or `creto inbox`;"
                " to agree beforehand, give `--allow HOST` and `--apply all`, which leaves out what tools outside run"
            )


_ANSWERED_HERE = 60.0
_ECHO = 0.1
"""Seconds in which a terminal answers what a program has asked it."""
_PLAIN = b"\x1b[!p\x1b[0m\x1b(B\x0f\x1b]104\x07\x1b]110\x07\x1b]111\x07"
"""Soft reset, no attributes, the usual letters and colours: nothing that a program has set hides what comes next."""


def _restore() -> None:
    """Undoes what a program may have done to how its terminal shows text: hidden, or in other letters."""
    for descriptor in (1, 2):  # a program may have either of them, whatever became of the other
        if os.isatty(descriptor):
            with contextlib.suppress(OSError):
                os.write(descriptor, _PLAIN)


def _listed(paths: Sequence[str]) -> str:
    shown = ", ".join(paths[:5])
    return shown if len(paths) <= 5 else f"{shown} and {len(paths) - 5} more"


def _has_terminal() -> bool:
    try:
        os.close(_terminal())
    except OSError:
        return False
    return True


def _terminal() -> int:
    return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


async def _line(prompt: str) -> bytes:
    with os.fdopen(_terminal(), "r+b", buffering=0) as device:
        termios.tcflush(device, termios.TCIFLUSH)
        device.write(prompt.encode())
        await anyio.wait_readable(device)  # and no thread, which would hold up a Ctrl-C until the line is there
        return os.read(device.fileno(), 4096)


@contextlib.contextmanager
def _raw(terminal: bool) -> Iterator[None]:
    """The terminal as the program's own needs it: each key at once, Ctrl-C as a byte. Given back as it was."""
    if not terminal:
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


async def _write(into: int, data: bytes) -> bool:
    """Writes all of it; false where nobody reads any more."""
    while data:
        try:
            data = data[os.write(into, data) :]
        except BlockingIOError:
            await anyio.wait_writable(into)
        except OSError:
            return False
    return True
