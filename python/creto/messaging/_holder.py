"""Which process holds a message: host, number and start, so that a dead one is told from another of its number."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["is_dead", "this_process"]


def this_process() -> str:
    """The name of this process, `host/number/start`."""
    return f"{socket.gethostname()}/{os.getpid()}/{_started(os.getpid())}"


def is_dead(holder: str) -> bool:
    """True where a holder of this machine no longer runs; of another machine nothing is known, so False."""
    try:
        host, number, started = holder.rsplit("/", 2)
    except ValueError:
        return False
    return host == socket.gethostname() and _started(int(number)) != started


def _started(number: int) -> str:
    try:
        # Field 22 of stat(5), counted after the name, which may hold spaces and brackets.
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "-"
