"""An HTTP server of the standard library that a flood of connections neither fills nor shuts."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import ThreadingHTTPServer
from typing import Any

from creto.errors import InvalidInputError

__all__ = ["MOST_CONNECTIONS", "BoundedServer", "address"]

MOST_CONNECTIONS = 128
"""Each has a thread."""


def address(listen: str) -> tuple[str, int]:
    """`address:port` in its parts.

    Raises:
        InvalidInputError: It is none.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise InvalidInputError(f"`{listen}` is no address to listen on; write address:port")
    return host.strip("[]"), int(port)


class BoundedServer(ThreadingHTTPServer):
    """Serves each connection on a thread, of which there are few: the oldest connection makes place for a new one.

    A request takes milliseconds, and only connections that hold it up grow old.

    Args:
        listen: `address:port`; port 0 for a free one.
        handler: What answers.

    Raises:
        InvalidInputError: The address has no valid reading, or cannot be listened on.
    """

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, listen: str, handler: Any) -> None:
        host, port = address(listen)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._open: dict[Any, None] = {}
        self._lock = threading.Lock()
        try:
            super().__init__((host, port), handler)
        except OSError as error:
            raise InvalidInputError(f"nothing can be served on `{listen}`: {error.strerror}") from error

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begins a thread for a connection, once there is a place."""
        # A head and a short body are two packets: the second would wait 40 ms for the first to be acknowledged.
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            if len(self._open) >= MOST_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):  # gone by itself
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke off is nobody's fault here, and no reason to fill the log with traces."""
