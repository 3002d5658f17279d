"""A claimed sandbox: run programs in it, see what they changed, carry that out."""

from __future__ import annotations

import contextlib
import os
import signal as signals
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from creto import _bridge
from creto.runtime._changes import MOST_DIFF, Change, DiffBudget, unified_diff

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from creto import _core

__all__ = ["Box", "Connection", "Hooks", "Program", "Result"]

_MOST_CONNECTIONS = 1000
"""A program makes ten thousand in a second."""
_MOST_REQUESTS = 50
_MOST_REQUEST = 500
"""Characters that are kept of one."""
_LOOK_AGAIN = 1.0
"""Seconds."""
_AT_ONCE = 4096
"""Texts of fewer bytes are compared in less time than a thread takes to begin."""


class Hooks(Protocol):
    """Who decides for a sandbox. What a hook raises counts as a no.

    Hooks that have a method `connection(connection)` are asked by that in place of `egress`; those that have a method
    `request(connection, method, target)` are asked about each plain HTTP request too. Those that have a method
    `ended(connection)` (async), which gives why a yes counts no more, or None, are asked that each second for each
    connection that is open; it ends then.

    Example:
        >>> class OneHost:
        ...     async def egress(self, host, port, scheme): return (host, port) == ("example.org", 443)
        ...     async def command(self, argv): return True
        ...     async def changes(self, changes): return [change for change in changes if change.path.endswith(".md")]
        >>> hooks: Hooks = OneHost()
    """

    async def egress(self, host: str, port: int, scheme: str | None) -> bool:
        """May the program connect to `host:port`? May take as long as a human does; asked for each connection."""
        ...

    async def command(self, argv: Sequence[str]) -> bool:
        """May this program be started?

        Hooks that have a method `program(argv, run)` are asked by that instead: it decides, awaits `run()`, which gives
        the exit code, and so spans the program.
        """
        ...

    async def changes(self, changes: list[Change]) -> list[Change]:
        """Which of these changes may be carried out?"""
        ...


@dataclass(slots=True)
class Connection:
    """One connection that a program tried to make, and what became of it.

    Example:
        >>> Connection("example.org", 443, "tls", allowed=False, reason="no policy permits it").reason
        'no policy permits it'
    """

    host: str
    port: int
    scheme: str | None
    allowed: bool | None
    """None while nobody has answered."""
    reason: str | None = None
    sent: int = 0
    received: int = 0
    requests: list[str] | None = None
    """Its plain HTTP requests that were let through, the newest, cut where they are long."""
    agreed: frozenset[str] = frozenset()
    """Policies that asked about it and were answered with yes."""
    approvers: tuple[str, ...] = ()
    """Who answered."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended.

    Example:
        >>> Result(-9, b"", b"", truncated=False).exit_code
        137
    """

    status: int
    """Exit status; negative for the signal that ended it."""
    stdout: bytes
    stderr: bytes
    truncated: bool
    """True where it wrote more than the 64 MiB that are kept of each stream."""

    @property
    def exit_code(self) -> int:
        """The status as a shell has it: 128 and the signal's number where a signal ended it."""
        return self.status if self.status >= 0 else 128 - self.status


Stream = int | IO[Any] | None


def _descriptor(stream: Stream) -> int | None:
    return stream if stream is None or isinstance(stream, int) else stream.fileno()


class Program:
    """A program that runs in a sandbox."""

    def __init__(self, box: Box, number: int) -> None:
        import anyio

        self._box = box
        self._ended = anyio.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._number = number

    async def wait(self) -> Result:
        """Waits until it has ended. A cancelled wait kills it.

        Raises:
            InternalError: The sandbox ended first.
        """
        try:
            await self._ended.wait()
        except BaseException:
            with contextlib.suppress(Exception):
                self.signal(signals.SIGKILL)
            raise
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def signal(self, number: int) -> None:
        """Sends a signal to the program and all that it started in its process group.

        Args:
            number: As in `signal.SIGINT`.
        """
        self._box._lease.signal(self._number, int(number))

    def resize(self, rows: int, columns: int) -> None:
        """Tells the program's terminal its size, in characters."""
        self._box._lease.resize(self._number, rows, columns)


class Box:
    """A claimed sandbox; made by `Pool.claim`."""

    def __init__(
        self, lease: _core.SandboxLease, hooks: Hooks, workdir: Path, tasks: TaskGroup, hidden: Sequence[str] = ()
    ) -> None:
        self._lease = lease
        self.id = lease.id
        """Its name on this machine."""
        self.hooks = hooks
        self.hidden = tuple(hidden)
        """Paths of the folder that are not in view inside."""
        self._attestation: str | None = None
        self._attested: Any = None
        self._failure: Exception | None = None
        self._tasks = tasks
        self.workdir = workdir
        self.connections: list[Connection] = []
        """The newest connections tried so far, in order."""
        self.before = {"allowed": 0, "refused": 0}
        """How many were tried before those."""
        self._by_id: dict[int, Connection] = {}
        self._gone = False

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stdin: Stream | bytes = None,
        stdout: Stream = None,
        stderr: Stream = None,
        terminal: tuple[int, int] | None = None,
    ) -> Program:
        """Starts a program.

        Args:
            argv: Name or path, then arguments.
            env: Environment beyond that of the claim.
            cwd: Where to start it; the working folder unless said.
            stdin: Bytes, a file, a descriptor, or nothing.
            stdout: A file or descriptor; captured unless said.
            stderr: A file or descriptor; captured unless said.
            terminal: Rows and columns, where it is to have a terminal; its output then all goes to `stdout`.

        Raises:
            UnauthorizedError: The hook `command` says no.
            InvalidInputError: It is no list of a program and its arguments, or the sandbox is gone.
        """
        from creto.errors import InvalidInputError, UnauthorizedError

        if self._gone:
            raise InvalidInputError("the sandbox is gone: run programs inside of its `async with`")
        if isinstance(argv, str | bytes) or not argv or not all(isinstance(part, str) for part in argv):
            raise InvalidInputError(
                f"`{argv!r}`: there is no program to run in it; give a program and its arguments, as ['ls', '-l']"
            )
        spanning = getattr(self.hooks, "program", None)
        if spanning is None and not await self.hooks.command(list(argv)):
            raise UnauthorizedError(f"running `{' '.join(argv)}` is not allowed")
        source = stdin if isinstance(stdin, bytes) else _descriptor(stdin)
        program = Program(self, 0)

        async def follow(task_status: Any) -> None:
            def begin(bridge: _core.Bridge, token: int) -> None:
                program._number = self._lease.run(
                    list(argv), dict(env or {}), None if cwd is None else os.fspath(cwd), terminal, source,
                    _descriptor(stdout), _descriptor(stderr), bridge, token,
                )  # fmt: skip
                task_status.started()

            async def run() -> int:
                program._result = Result(*await _bridge.wait(begin))
                return program._result.exit_code

            try:
                await (run() if spanning is None else spanning(list(argv), run))
            except Exception as error:
                if program._number == 0:
                    raise
                program._error = error
            finally:
                program._ended.set()

        await self._start(follow)
        return program

    async def _start(self, follow: Any) -> None:
        """Starts a task of the box and waits for its first word, with its error as it is, not in a group."""
        import anyio

        started = anyio.Event()
        failed: list[Exception] = []

        class _Status:
            @staticmethod
            def started() -> None:
                started.set()

        async def task() -> None:
            try:
                await follow(_Status)
            except Exception as error:  # noqa: BLE001 - handed on to whoever started it
                failed.append(error)
            finally:
                started.set()

        self._tasks.start_soon(task)
        await started.wait()
        if failed:
            raise failed[0]

    async def run(self, argv: Sequence[str], **options: Any) -> Result:
        """Runs a program to its end: `start` and `wait` in one; takes the options of `start`."""
        program = await self.start(argv, **options)
        return await program.wait()

    async def hold(self, held: bool) -> None:
        """Keeps back what programs write to files and descriptors of the caller, or lets it go.

        For a terminal that programs and questions share: once this returns, nothing of a program is written to it.

        Args:
            held: Whether to keep it back.
        """
        import anyio

        await anyio.to_thread.run_sync(self._lease.hold, held)

    async def changes(self, *, diff: bool = True) -> list[Change]:
        """Lists what was changed in the working folder, sorted by path; nothing of it is in the real folder yet.

        Args:
            diff: Whether to make unified diffs of small texts; at most 32 MiB of them together.
        """
        raw = await _bridge.wait(self._lease.changes)
        changes = [Change.from_core(one) for one in raw]
        budget = DiffBudget()
        return [await self._with_diff(change, budget) for change in changes] if diff else changes

    async def _with_diff(self, change: Change, budget: DiffBudget) -> Change:
        import anyio

        if change.shape != "file" or max(change.size_before or 0, change.size_after or 0) > MOST_DIFF:
            return change
        if budget.characters <= 0:
            return change
        before, after = await _bridge.wait(lambda b, t: self._lease.contents(change.path, MOST_DIFF, b, t))
        after = after if change.kind != "deleted" else None
        if change.path in self.hidden:
            before = b""  # what the program may not see, no approver is shown for its sake, and no request keeps
        if len(before or b"") + len(after or b"") < _AT_ONCE:
            return replace(change, diff=unified_diff(change.path, before, after, budget))
        return replace(change, diff=await anyio.to_thread.run_sync(unified_diff, change.path, before, after, budget))

    async def apply(self, changes: Sequence[Change]) -> None:
        """Carries changes out of the sandbox into the real folder: exactly what was listed, or nothing.

        Raises:
            IntegrityError: The program changed one of them since it was listed.
            AlreadyExistsError: Somebody else changed the real file meanwhile.
            UnauthorizedError: One of them leads out of the folder.
        """
        from creto.errors import UnauthorizedError

        for change in changes:
            if change.refused:
                raise UnauthorizedError(f"`{change.name}` is {change.refused}")
        agreed = [change.agreed for change in changes]
        if agreed:
            await _bridge.wait(lambda bridge, token: self._lease.apply(agreed, bridge, token))

    async def settle(self) -> tuple[list[Change], list[Change]]:
        """Lists the changes, asks the hook `changes` which may be carried out, and does so.

        Returns:
            All changes, and those that were carried out.
        """
        found = await self.changes()
        agreed = await self.hooks.changes(found) if found else []
        await self.apply(agreed)
        return found, list(agreed)

    def attest(self, make: Callable[[], Awaitable[str]]) -> None:
        """Has the attestation made beside the program.

        Args:
            make: Gives the signed statement.
        """
        import anyio

        done = self._attested = anyio.Event()

        async def run() -> None:
            try:
                self._attestation = await make()
            except Exception as error:  # noqa: BLE001 - raised to whoever asks for it
                self._failure = error
            finally:
                done.set()

        self._tasks.start_soon(run)

    async def attested(self) -> str | None:
        """What it is made of, signed: DSSE JSON; None where whoever claimed it has none made.

        Raises:
            CretoError: It could not be made.
        """
        if self._attested is None:
            return None
        await self._attested.wait()
        if self._failure is not None:
            raise self._failure
        return self._attestation

    async def _serve(self) -> None:
        """Answers the sandbox's questions until it ends."""
        while True:
            event = await _bridge.wait(self._lease.next_event)
            if event is None:
                return
            if event["event"] == "ask" and event["method"] is not None:
                self._tasks.start_soon(self._decide_request, event)
            elif event["event"] == "ask" and (known := self._by_id.get(event["on"])):
                # What it carries showed only after it was let through: asked about again, as what it is.
                known.scheme = event["scheme"]
                self._tasks.start_soon(self._decide, event["id"], known)
            elif event["event"] == "ask":
                connection = Connection(event["host"], event["port"], event["scheme"], None)
                self._note(connection)
                self._by_id[event["id"]] = connection
                self._tasks.start_soon(self._decide, event["id"], connection)
            elif event["event"] == "refused":
                self._note(Connection(event["host"], event["port"], None, False, event["reason"]))
            elif event["event"] == "closed" and (connection_ := self._by_id.pop(event["id"], None)):
                connection_.sent, connection_.received = event["sent"], event["received"]
                connection_.reason = connection_.reason or event["error"]

    async def _watch(self) -> None:
        """Ends connections whose agreement counts no more, and takes back what nobody has used yet."""
        import anyio

        ended = getattr(self.hooks, "ended", None)
        while ended is not None:
            await anyio.sleep(_LOOK_AGAIN)
            for question, connection in list(self._by_id.items()):
                if not connection.allowed or connection.reason is not None:
                    continue
                try:
                    connection.reason = await ended(connection)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is no yes
                    connection.reason = str(error)
                if connection.reason is not None:
                    with contextlib.suppress(Exception):
                        self._lease.withdraw(question)

    def _note(self, connection: Connection) -> None:
        if len(self.connections) >= _MOST_CONNECTIONS:
            self.before["allowed" if self.connections.pop(0).allowed else "refused"] += 1
        self.connections.append(connection)

    async def _decide_request(self, event: dict[str, Any]) -> None:
        """Decides about one plain HTTP request; hooks that do not care for those let it pass."""
        method, target = event["method"], event["target"]
        connection = self._by_id.get(event["on"])
        allowed = False
        try:
            decide = getattr(self.hooks, "request", None)
            allowed = connection is not None and (decide is None or bool(await decide(connection, method, target)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no yes
            if connection is not None:
                connection.reason = str(error)
        finally:
            if connection is not None and allowed:
                earlier = (connection.requests or [])[1 - _MOST_REQUESTS :]
                connection.requests = [*earlier, f"{method} {target}"[:_MOST_REQUEST]]
            with contextlib.suppress(Exception):
                self._lease.answer(event["id"], allowed)

    async def _decide(self, question: int, connection: Connection) -> None:
        allowed = False
        try:
            decide = getattr(self.hooks, "connection", None)
            allowed = bool(
                await (
                    decide(connection)
                    if decide is not None
                    else self.hooks.egress(connection.host, connection.port, connection.scheme)
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no yes
            connection.reason = str(error)
        finally:
            connection.allowed = allowed
            if not allowed:
                self._by_id.pop(question, None)  # it will not be told of as closed
            with contextlib.suppress(Exception):
                self._lease.answer(question, allowed)
