"""Serves the inbox on a socket of this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import uvicorn
from sqlalchemy import delete

from creto.errors import InvalidInputError
from creto.oversight import Desk
from creto.oversight.channels._announcements import INBOX
from creto.server._app import inbox_app
from creto.store import Store, Transaction
from creto.store.tables import meta

__all__ = ["serve_inbox"]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


async def serve_inbox(
    desk: Desk,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    url: str | None = None,
    started: Callable[[str], None] = lambda _: None,
) -> None:
    """Serves until cancelled or told to stop by SIGINT or SIGTERM. Runs under asyncio.

    Args:
        desk: Where the requests are.
        host: Where to listen.
        port: The port; 0 for any free one.
        url: The inbox as approvers reach it, `https://...`, where a proxy stands in front.
        started: Called with the address once it can be reached.

    Raises:
        InvalidInputError: It would be reached from elsewhere without TLS, or the port is taken.
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
    app = inbox_app(desk, hosts=hosts, secure=shown.startswith("https://"))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            limit_concurrency=200,
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
            await server.serve(sockets=[listening])
            group.cancel_scope.cancel()
    finally:
        server.should_exit = True
        listening.close()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_withdraw, desk.store, shown)


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
