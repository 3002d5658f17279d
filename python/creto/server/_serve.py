"""Serves the inbox on a socket of this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import uvicorn
from sqlalchemy import delete

from creto.audit import AuditRecord
from creto.errors import InvalidInputError
from creto.oversight import Desk
from creto.oversight.channels._announcements import INBOX
from creto.server._app import inbox_app
from creto.server._metrics import Metrics
from creto.store import Store, Transaction
from creto.store.tables import meta

__all__ = ["serve_inbox"]

_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 20.0
"""How long a connection may be without a whole request; longer than idle ones are kept."""
_MOST_WAITING = 128
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


async def serve_inbox(
    desk: Desk,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    url: str | None = None,
    metrics: Metrics | None = None,
    folder: Path | None = None,
    price: Callable[[Sequence[AuditRecord]], str] = lambda _: "",
    started: Callable[[str], None] = lambda _: None,
) -> None:
    """Serves until cancelled or told to stop by SIGINT or SIGTERM. Runs under asyncio.

    Args:
        desk: Where the requests are.
        host: Where to listen.
        port: The port; 0 for any free one.
        url: The inbox as approvers reach it, `https://...`, where a proxy stands in front.
        metrics: The figures at `/metrics`, if any.
        folder: The state folder, whose acts are shown to approvers of every policy; none are shown without it.
        price: What an act costs, in words, from its records.
        started: Called with the address once it can be reached.

    Raises:
        InvalidInputError: It would be reached from elsewhere without TLS, or the port is taken.

    Example:
        >>> import anyio, tempfile
        >>> from creto.config import load
        >>> from creto.oversight import open_desk
        >>> from creto.reach import Reach
        >>> from creto.store import Store
        >>> async def main():
        ...     with Store(tempfile.mkdtemp()) as store, Reach(store) as reach:
        ...         desk = open_desk(store, load(state=store.folder, environment={}, system=False), reach)
        ...         async with anyio.create_task_group() as tasks:
        ...             def started(url):
        ...                 print(url.rpartition(":")[0])
        ...                 tasks.cancel_scope.cancel()
        ...             await serve_inbox(desk, started=started)
        >>> anyio.run(main)
        http://127.0.0.1
    """
    reached = urlsplit(url) if url else None
    if host not in _LOOPBACK and (reached is None or reached.scheme != "https"):
        raise InvalidInputError(
            f"the inbox may listen on `{host}` only behind TLS, or tokens could be read on the way: "
            "set `oversight.inbox_url` to the https address of the proxy in front of it"
        )
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    shown = url or f"http://{'localhost' if host == '::1' else host}:{port}"
    hosts = {f"{host}:{port}"} | ({reached.netloc} if reached else set())
    secure = shown.startswith("https://")
    app = inbox_app(desk, hosts=hosts, secure=secure, metrics=metrics, folder=folder, price=price)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            # Its own limit counts connections that ask for nothing, so that whoever opens enough of them shuts us.
            http="h11",
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
        )
    )
    await desk.store.run(_announce, shown)
    try:
        async with anyio.create_task_group() as group:

            async def tell() -> None:
                # The socket listens already: what connects before the server is up waits in its queue.
                await anyio.lowlevel.checkpoint()
                started(shown)

            listening.listen(128)
            group.start_soon(tell)
            group.start_soon(_let_nobody_wait, server)
            await server.serve(sockets=[listening])
            group.cancel_scope.cancel()
    finally:
        server.should_exit = True
        listening.close()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_withdraw, desk.store, shown)


async def _let_nobody_wait(server: uvicorn.Server) -> None:
    """Drops connections that ask for nothing, take their time to say it, or do not read: all of them hold us.

    Where there are many, the oldest go first, so that an approver's request finds a place whoever else is waiting.
    """
    since: dict[Any, tuple[Any, float]] = {}
    while True:
        await anyio.sleep(_LOOK_SECONDS)
        now = anyio.current_time()
        waiting = {}
        connections: list[Any] = list(server.server_state.connections)  # of h11, and no other protocol
        for connection in connections:
            cycle = connection.cycle
            # Or takes nothing of what it is answered, which would have its next request under way for ever.
            if cycle is None or cycle.response_complete or cycle.more_body or connection.flow.write_paused:
                known = since.get(connection)
                waiting[connection] = known if known is not None and known[0] is cycle else (cycle, now)
        since = waiting
        oldest = sorted(waiting, key=lambda connection: waiting[connection][1])
        for place, connection in enumerate(oldest):
            waited = now - waiting[connection][1]
            # One that is seen for the first time has had no time to say anything, nor is it known how old it is.
            if waited > _PATIENCE_SECONDS or (waited > 0 and place < len(oldest) - _MOST_WAITING):
                connection.transport.abort()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InvalidInputError(f"the inbox cannot listen on `{host}:{port}`: {error.strerror}") from error
    return listening


def _announce(tx: Transaction, url: str) -> None:
    tx.execute(delete(meta).where(meta.c.name == INBOX))
    tx.insert(meta, name=INBOX, value=url)


def _withdraw(store: Store, url: str) -> None:
    # Another inbox may have taken over; its address stays.
    with store.begin() as tx:
        tx.execute(delete(meta).where((meta.c.name == INBOX) & (meta.c.value == url)))
