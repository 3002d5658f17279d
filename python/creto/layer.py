"""The layer: the one place where the parts are put together, and the order that every act goes through.

authorize -> (ask a human) -> reserve quota -> perform -> charge -> record
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from pathlib import Path
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

import anyio
import anyio.to_thread

from creto import _bridge, _core
from creto._act import Act, failure, nothing, takes_act
from creto._beside import beside
from creto._course import Course, Durability, admit, brought, is_strict
from creto._guard import acting, guard
from creto._in_thread import in_thread
from creto.errors import ForkedError, InvalidInputError
from creto.messaging import Mailbox
from creto.nhi._agent import no_agent

if TYPE_CHECKING:
    import numpy as np
    from anyio.from_thread import BlockingPortal
    from numpy.typing import NDArray

    from creto._confined import Confinement
    from creto._parts import Parts
    from creto.memory import Recalled
    from creto.messaging import Inbox, Message, Sent
    from creto.messaging._sending import Delivery
    from creto.metering import Ingest
    from creto.nhi import Agent
    from creto.runtime import Box, Pool, Result

__all__ = ["Act", "Durability", "EnablementLayer", "open", "open_blocking"]

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
_PRINCIPALS = 10_000


@asynccontextmanager
async def open(
    state: str | os.PathLike[str] | None = None, *, config: Iterable[str | os.PathLike[str]] = ()
) -> AsyncIterator[EnablementLayer]:
    """Opens the layer: policies, quotas, prices and approvers from the configuration, embedded, without a server.

    Args:
        state: The state folder; `CRETO_STATE`, or `~/.local/state/creto`, where there is none.
        config: Configuration files that override the others, the strongest last; or one.

    Raises:
        InvalidInputError: The configuration or a policy is not right; the text says what and where.

    Example:
        >>> import asyncio, creto
        >>> async def main():
        ...     async with creto.open() as layer:
        ...         return layer.agent("researcher").id
        >>> asyncio.run(main())
        'spiffe://creto.local/agent/researcher'
    """
    from creto._parts import ClosedParts, Parts

    # A single name is an iterable of letters, and never meant as one.
    files = [config] if isinstance(config, str | os.PathLike) else list(config)
    parts = await in_thread(
        lambda: Parts(Path(state) if state is not None else None, [Path(file) for file in files]), undo=Parts.close
    )
    layer = EnablementLayer(parts)
    try:
        await parts.recover()
        async with beside() as tasks:
            tasks.start_soon(parts.live.watch)
            if parts.settings.messaging.nats_url is not None:
                tasks.start_soon(layer.mailbox.keep_carrying, parts.settings.messaging.nats_url.get_secret_value())
            yield layer
    finally:
        with anyio.CancelScope(shield=True):
            async with AsyncExitStack() as closing:
                closing.push_async_callback(in_thread, parts.close)
                for pool in layer._pools.values():
                    closing.push_async_callback(pool.close)
            layer.parts = layer.mailbox = ClosedParts()  # type: ignore[assignment]  # it is whatever it is asked for


@contextmanager
def open_blocking(
    state: str | os.PathLike[str] | None = None, *, config: Iterable[str | os.PathLike[str]] = ()
) -> Iterator[EnablementLayer]:
    """`open` for code without an event loop: one runs in a thread beside it. Use the methods that end in `_blocking`.

    A process that is forked from this one opens a layer of its own.

    Args:
        state: As for `open`.
        config: As for `open`.

    Example:
        >>> import creto
        >>> with creto.open_blocking() as layer:
        ...     agent = layer.agent("researcher")
        ...     layer.perform_blocking(agent, "tool:call", "add", lambda: 1 + 1)
        2
    """
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal() as portal, ExitStack() as closing:
        layer = closing.enter_context(portal.wrap_async_context_manager(open(state, config=config)))
        layer._portal = portal
        try:
            yield layer
        finally:
            if layer._pid != os.getpid():  # a fork has no thread with the loop, and what is open is its parent's
                closing.pop_all()
                with suppress(StopIteration, RuntimeError):
                    portal.stop().send(None)


class EnablementLayer:
    """Everything that an act needs, over one state folder. `creto.open()` makes one.

    Args:
        parts: The parts, put together.

    Example:
        >>> import tempfile, creto
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     layer.perform_blocking(layer.agent("researcher"), "tool:call", "add", lambda: 1 + 1)
        2
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.strict = parts.settings.audit.durability == "strict"
        """Whether acts that do not say otherwise are on disk before they start and before they end."""
        self._principals: dict[tuple[str, tuple[tuple[str, str], ...], str], tuple[int, _core.Principal]] = {}
        self._pools: dict[str, Pool] = {}
        self._portal: BlockingPortal | None = None
        self._pid = os.getpid()
        self.mailbox = Mailbox(
            parts.store,
            parts.identities,
            parts.reach,
            max_message_size=parts.settings.messaging.max_message_size_bytes,
            delivery_timeout=parts.settings.messaging.delivery_timeout_seconds,
            authorize_send=self._may_send,
            authorize_receive=self._may_receive,
            record=parts.record,
            remote=parts.settings.messaging.nats_url is not None,
            observe=parts.clock.observe,
        )

    # --- who ----------------------------------------------------------------------------------------------------------

    def agent(self, name: str | None = None) -> Agent:
        """The agent of this name, made on first use with keys sealed in the state folder.

        Args:
            name: Its name in the trust domain, or its whole SPIFFE id; by default `default`.

        Raises:
            InvalidInputError: The name is not one.
            UnauthorizedError: It was revoked.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     layer.agent("researcher").name, layer.agent().name
            ('researcher', 'default')
        """
        return self.parts.identities.agent("default" if name is None else name)

    @contextmanager
    def acting(self, agent: Agent) -> Iterator[None]:
        """Makes guarded functions act as this agent, in this task and those that it starts.

        Args:
            agent: Who acts.

        Example:
            >>> import asyncio, tempfile, creto
            >>> async def main():
            ...     async with creto.open(tempfile.mkdtemp()) as layer:
            ...         @layer.guard("tool:call")
            ...         async def add(a: int, b: int) -> int:
            ...             return a + b
            ...         with layer.acting(layer.agent("researcher")):
            ...             return await add(1, 2)
            >>> asyncio.run(main())
            3
        """
        token = acting.set(agent)
        try:
            yield
        finally:
            acting.reset(token)

    def principal(self, agent: Agent) -> _core.Principal:
        """The prepared form of an agent: its chain and the path of its quotas.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     layer.principal(layer.agent("researcher")).agent
            'spiffe://creto.local/agent/researcher'
        """
        identities = self.parts.identities
        try:
            delegation = agent.delegation
        except AttributeError:
            raise no_agent(agent) from None
        if delegation is not None:
            identities.require_unexpired(agent)
        key = (agent.id, agent.chain, agent.sandbox)
        epoch = identities.epoch
        held = self._principals.get(key)
        if held is not None and held[0] == epoch:
            return held[1]
        for link, _ in ((agent.id, ""), *agent.chain):
            identities.find(link)  # raises where it was revoked
        made = self.parts.gate.principal(
            agent.id, self.parts.quota_path(agent), list(agent.chain), sandbox=agent.sandbox or None
        )
        if len(self._principals) >= _PRINCIPALS:
            self._principals.clear()
        self._principals[key] = (epoch, made)
        return made

    # --- acts ---------------------------------------------------------------------------------------------------------

    async def perform(
        self,
        agent: Agent,
        action: str,
        resource: str,
        operation: Callable[..., Awaitable[R] | R],
        *,
        context: Mapping[str, Any] | None = None,
        usage: Mapping[str, int] | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
        preview: str | None = None,
    ) -> R:
        """Performs an act: authorized, agreed to where policy asks, within quota, charged and recorded.

        Args:
            agent: Who acts.
            action: `namespace:verb`, such as `http:get`.
            resource: On what; `Type::"id"`, or the bare id where the schema names one type for the action.
            operation: What is done; called with the `Act` if it takes an argument; what it returns is awaited.
            context: The circumstances, by name: what policies decide on and approvers agree to.
            usage: What it is expected to use, by meter, in the meter's smallest unit; reserved before, charged after.
            durability: `strict`: the intent is on disk before the operation starts, the outcome before this returns.
                `relaxed`: both are only queued. The configuration's by default.
            timeout: Seconds to wait for a human, where one has to agree.
            preview: What would change, shown to the human.

        Returns:
            What the operation returned.

        Raises:
            UnauthorizedError: Policy, or a human, said no.
            QuotaExceededError: A quota has no room.
            OversightRequiredError: No human answered in time.
            LedgerFullError: It could not be recorded, so it was not done.
            InvalidInputError: An argument is not what it has to be; nothing was decided or recorded.

        Example:
            >>> import asyncio, creto
            >>> async def main():
            ...     async with creto.open() as layer:
            ...         agent = layer.agent("researcher")
            ...         return await layer.perform(agent, "tool:call", "add", lambda: 1 + 1, usage={"tool_calls": 1})
            >>> asyncio.run(main())
            2
        """
        if not callable(operation):
            raise _no_operation(operation)
        strict = is_strict(self, durability)
        taken, used = brought(self, agent, action, resource, context, usage)
        admitted = admit(self, agent, action, resource, taken, used)
        course, asks = None, takes_act(operation)
        # What a budget counts as spent is looked at again at the end.
        if isinstance(admitted, _core.Permit) and used is usage and not (strict or admitted.wants_intent or asks):
            permit = admitted  # it waits for nothing: the permit is all there is of it
        else:
            course = Course(self, agent, action, resource, taken, used, strict)
            await course.make_ready(admitted, timeout, preview)
        try:
            result = operation(course.act) if asks and course is not None else operation()
            if inspect.isawaitable(result):
                result = await result
        except BaseException as error:
            if course is None:
                permit.settle(failure(error))
            else:
                await course.finish(error)
            raise
        if course is None:
            permit.settle()
        else:
            await course.finish(None)
        return cast("R", result)  # awaited above where it could be

    def perform_blocking(
        self,
        agent: Agent,
        action: str,
        resource: str,
        operation: Callable[..., R],
        *,
        context: Mapping[str, Any] | None = None,
        usage: Mapping[str, int] | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
        preview: str | None = None,
    ) -> R:
        """`perform` for code without an event loop: the operation, a plain function, runs in this thread.

        The layer must come from `creto.open_blocking()`. Arguments and errors are those of `perform`.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     layer.perform_blocking(layer.agent("researcher"), "tool:call", "add", lambda: 1 + 1)
            2
        """
        if not callable(operation):
            raise _no_operation(operation)
        if inspect.iscoroutinefunction(operation):
            name = getattr(operation, "__qualname__", repr(operation))  # a partial has none
            raise InvalidInputError(f"`{name}` is async, and nothing here would await it: use `perform`")
        taken, used = brought(self, agent, action, resource, context, usage)
        course = Course(self, agent, action, resource, taken, used, is_strict(self, durability))
        self.call_blocking(course.begin, timeout, preview)
        try:
            result = operation(course.act) if takes_act(operation) else operation()
            if isinstance(result, CoroutineType):  # as `lambda: fetch(url)` can give; nothing is done yet
                result.close()
                raise InvalidInputError("the operation is async, and nothing here would await it: use `perform`")
        except BaseException as error:
            self.call_blocking(course.finish, error)
            raise
        self.call_blocking(course.finish, None)
        return result

    def guard(
        self,
        action: str,
        *,
        resource: str | Callable[..., str] | None = None,
        context: Mapping[str, Any] | None = None,
        usage: Mapping[str, int] | None = None,
        agent: Agent | None = None,
        durability: Durability | None = None,
    ) -> Callable[[F], F]:
        """Makes every call of a function an act; its bound arguments are the context.

        The function is async; with a layer from `creto.open_blocking()` it can be a plain one.

        Args:
            action: `namespace:verb`.
            resource: On what: a name, a function of the arguments that gives one, or the function's own name.
            context: Added to the arguments.
            usage: What a call uses, by meter.
            agent: Who acts; else the agent of `acting`, else `default`.
            durability: As for `perform`.

        Raises:
            InvalidInputError: The function is a plain one, and the layer does not come from `creto.open_blocking()`.

        Example:
            >>> import asyncio, tempfile, creto
            >>> async def main():
            ...     async with creto.open(tempfile.mkdtemp()) as layer:
            ...         @layer.guard("tool:call", resource="add", usage={"tool_calls": 1})
            ...         async def add(a: int, b: int) -> int:
            ...             return a + b
            ...         return await add(1, b=2)
            >>> asyncio.run(main())
            3
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     @layer.guard("tool:call")
            ...     def add(a: int, b: int) -> int:
            ...         return a + b
            ...     add(1, b=2)
            3
        """
        return guard(self, action, resource, context, usage, agent, durability)

    async def recall(
        self, agent: Agent, namespace: str, what: str | NDArray[np.float32], *, most: int = 5
    ) -> list[Recalled]:
        """Past acts or decisions that are like `what`, the most alike first: an act, `memory:read`, of its own.

        Whether the agent may read the namespace is decided before anything is looked at.

        Args:
            agent: Who recalls.
            namespace: `acts`: what was done or refused, each by its place in the ledger; `precedents`: what humans
                decided, each by its oversight request.
            what: A text, or a vector.
            most: How many at most.

        Raises:
            UnauthorizedError: Policy, or a human, said no; without a policy that permits it, it is.
            NotFoundError: There is no such namespace.

        Example:
            >>> import tempfile, creto
            >>> from pathlib import Path
            >>> folder = Path(tempfile.mkdtemp())
            >>> _ = (folder / "policies.cedar").write_text("permit (principal, action, resource);")
            >>> _ = (folder / "settings.toml").write_text(f'authz.policies = ["{folder}/policies.cedar"]')
            >>> with creto.open_blocking(folder / "state", config=folder / "settings.toml") as layer:
            ...     buyer = layer.agent("buyer")
            ...     layer.perform_blocking(buyer, "tool:call", "pay_supplier", lambda: None)
            ...     found = layer.call_blocking(layer.recall, buyer, "acts", "paying a supplier")
            ...     layer.call_blocking(layer.parts.audit.find, found[0].key)[0].resource
            'pay_supplier'
        """
        await _bridge.wait(self.parts.ledger.flushed)  # what this process did is among it

        async def search() -> list[Recalled]:
            return await anyio.to_thread.run_sync(lambda: self.parts.memory.recall(agent.id, namespace, what, most))

        return await self.perform(agent, "memory:read", namespace, search)

    # --- sandboxes and messages ---------------------------------------------------------------------------------------

    def sandbox(
        self, agent: Agent, workdir: str | os.PathLike[str] = ".", **options: Unpack[Confinement]
    ) -> AbstractAsyncContextManager[Box]:
        """A sandbox for this agent, claimed from the warm pool; what it does is decided and recorded act by act.

        Args:
            agent: Who runs in it.
            workdir: The folder it sees; changes land beside it, and are applied at the end where policy allows.
            options: `backend`: `gvisor` or `process`, the configuration's unless given. `env`: more environment for
                programs. `hosts`: names that lead to an address of your choice; with these it is made for the purpose,
                and takes as long. `secrets`: more of them, beside those that are kept for the agent. `timeout`: seconds
                to wait for a human, or a function of action and resource that tells them.

        Raises:
            UnauthorizedError: The agent may not read the folder.
            InvalidInputError: The folder holds creto's own state, keys or configuration, or lies in them.
            SandboxSpawnFailedError: No sandbox could be started.
        """
        from creto._confined import confined

        return confined(self, agent, workdir, **options)

    def pool(self, backend: str | None = None) -> Pool:
        """The sandboxes that stand ready for this layer, so that one of them is there in milliseconds.

        The first claim starts them, or `await layer.pool().start(warm=10)` before it; they end with the layer.
        How many: `runtime.warm_pool_min_size` and `runtime.warm_pool_max_size`.

        Args:
            backend: `gvisor` or `process`; the configuration's unless given.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     layer.pool().fill
            {'idle': 0, 'starting': 0, 'claimed': 0}
        """
        from creto._confined import pool_of

        name = backend or self.parts.settings.runtime.default_backend
        if name not in self._pools:
            self._pools[name] = pool_of(self.parts, name)
        return self._pools[name]

    async def send(
        self,
        agent: Agent,
        to: str | Sequence[str],
        body: bytes | str,
        **options: Unpack[Delivery],
    ) -> Sent:
        """Sends a sealed and signed message.

        Args:
            agent: The sender.
            to: The recipient's name or SPIFFE id, or several.
            body: At most `messaging.max_message_size_bytes` bytes; text is sent as UTF-8.
            options: `receipt`: waits until every recipient has acknowledged it (one on another machine: until it has
                received it, that is, has it in its mailbox). `timeout`: seconds to wait for that,
                `messaging.delivery_timeout_seconds` where none is given. And `content_type`, `in_reply_to`, `priority`,
                `expires_in`, `attach`, `durable`; see `Mailbox.send`.

        Returns:
            The message as it was sent: its id, its size, and its receipts as they come.

        Raises:
            DeliveryDeniedError: Policy does not let this message be sent.
            NotFoundError: No identity of the recipient is known.

        Example:
            >>> import asyncio, tempfile, creto
            >>> async def main():
            ...     async with creto.open(tempfile.mkdtemp()) as layer:
            ...         writer, reader = layer.agent("writer"), layer.agent("reader")
            ...         await layer.send(writer, "reader", b"the report is done")
            ...         async for message in layer.inbox(reader):
            ...             await message.ack()
            ...             return message.text
            >>> asyncio.run(main())
            'the report is done'
        """
        return await self.mailbox.send(agent, to, body, **options)

    def send_blocking(
        self,
        agent: Agent,
        to: str | Sequence[str],
        body: bytes | str,
        **options: Unpack[Delivery],
    ) -> Sent:
        """`send` for code without an event loop; the layer must come from `creto.open_blocking()`.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     _ = layer.agent("reader")
            ...     len(layer.send_blocking(layer.agent("writer"), "reader", b"done").id)
            32
        """

        async def send() -> Sent:
            return await self.send(agent, to, body, **options)

        sent: Sent = self.call_blocking(send)
        return sent

    def inbox(self, agent: Agent, *, hold: int = 60) -> Inbox:
        """The messages of an agent, as they come; each is given again until it is acknowledged.

        Args:
            agent: The recipient.
            hold: Seconds until a message that was handed out and not acknowledged comes again; where its process died,
                at once.

        Example:
            >>> import asyncio, tempfile, creto
            >>> async def main():
            ...     async with creto.open(tempfile.mkdtemp()) as layer:
            ...         reader = layer.agent("reader")
            ...         await layer.send(layer.agent("writer"), "reader", b"done")
            ...         async for message in layer.inbox(reader):
            ...             await message.ack()
            ...             return message.sender, message.body
            >>> asyncio.run(main())
            ('spiffe://creto.local/agent/writer', b'done')
        """
        return self.mailbox.inbox(agent, hold=hold)

    def inbox_blocking(self, agent: Agent, *, hold: int = 60) -> Iterator[Message]:
        """`inbox` for code without an event loop; acknowledge by `layer.call_blocking(message.ack)`.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     reader = layer.agent("reader")
            ...     _ = layer.send_blocking(layer.agent("writer"), "reader", b"done")
            ...     message = next(layer.inbox_blocking(reader))
            ...     layer.call_blocking(message.ack)
            ...     message.text
            'done'
        """
        inbox = self.inbox(agent, hold=hold)
        try:
            while True:
                try:
                    yield self.call_blocking(inbox.__anext__)
                except StopAsyncIteration:
                    return
        finally:
            inbox.close()

    def ingest(self) -> Ingest:
        """The way in for usage events of others; `close` it, or use it as a context manager.

        Returns:
            It takes events that are at most `metering.late_seconds` old.

        Raises:
            IntegrityError: The ledger was changed: what was taken before cannot be told.

        Example:
            >>> import tempfile, time
            >>> from creto import open_blocking
            >>> from creto.metering import UsageEvent
            >>> with open_blocking(tempfile.mkdtemp()) as layer, layer.ingest() as ingest:
            ...     ingest.take_blocking([UsageEvent("gateway", "1", "acme", "pages", 3, time.time_ns() // 1000)])
            Taken(taken=1, duplicates=0)
        """
        from creto.metering import Ingest

        parts = self.parts
        oldest = time.time_ns() // 1000 - round(parts.settings.metering.late_seconds * 1_000_000)
        return Ingest(parts.ledger, parts.folder / "ledger", parts.clock, max(0, oldest))

    def run_blocking(
        self, agent: Agent, argv: Sequence[str], workdir: str | os.PathLike[str] = ".", **options: Unpack[Confinement]
    ) -> Result:
        """Runs one program in a sandbox and carries out the changes that policy lets through.

        Args:
            agent: Who runs it.
            argv: The program and its arguments.
            workdir: The folder it sees.
            options: As for `sandbox`.

        Returns:
            How it ended and what it printed.
        """

        async def run() -> Result:
            async with self.sandbox(agent, workdir, **options) as box:
                result = await box.run(list(argv))
                await box.settle()
                return result

        result: Result = self.call_blocking(run)
        return result

    def call_blocking(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Calls an async function on the layer's own loop and waits; Ctrl-C cancels it.

        Args:
            function: Such as a message's `ack`.
            args: Its arguments.

        Raises:
            InvalidInputError: The layer does not come from `creto.open_blocking()`.
            ForkedError: It was opened before this process was forked.

        Example:
            >>> import tempfile, creto
            >>> async def later(): return 7
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     layer.call_blocking(later)
            7
        """
        if self._portal is None:
            raise InvalidInputError("a `_blocking` method needs a layer from `creto.open_blocking()`")
        if self._pid != os.getpid():
            raise ForkedError("the layer was opened by the parent process; open one in the child")
        try:
            future = self._portal.start_task_soon(function, *args)
        except RuntimeError as error:
            raise InvalidInputError("the layer is closed: act inside of `with creto.open_blocking()`") from error
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _may_send(self, agent: Agent, other: str, context: Mapping[str, Any]) -> None:
        await self.perform(agent, "message:send", other, nothing, context=context, usage={"messages": 1})

    async def _may_receive(self, agent: Agent, other: str, context: Mapping[str, Any]) -> None:
        await self.perform(agent, "message:receive", other, nothing, context=context)


def _no_operation(given: object) -> InvalidInputError:
    return InvalidInputError(
        f"`{given!r}` cannot be called: give the function that does it, such as `lambda: fetch(url)`"
    )
