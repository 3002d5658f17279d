"""Names a process so that others can tell whether it still runs: machine, boot, namespace, pid and start time."""

from __future__ import annotations

import functools
import os
from pathlib import Path

__all__ = ["alive", "here", "start_of"]


def here() -> str:
    """The name of this process.

    Example:
        >>> alive(here())
        True
    """
    pid = os.getpid()
    return f"{_world()}/{pid}/{start_of(pid)}"


def alive(holder: str) -> bool:
    """Says whether a process that `here` named still runs; one that cannot be seen from here counts as running.

    Args:
        holder: What `here()` gave in that process.

    Example:
        >>> alive(here().rsplit("/", 1)[0] + "/0")
        False
    """
    parts = holder.rsplit("/", 2)
    if len(parts) != 3 or not parts[1].isdigit():
        return True
    world, pid, start = parts
    if world == _world():
        return start == start_of(int(pid))
    # Another machine or namespace: nothing can be said, so nothing is taken from it. An earlier boot of this one is
    # over; but machines may share a name (`localhost`, a container's), and only its number says that it is this one.
    there, here = world.split("/"), _world().split("/")
    return "?" in here[:3] or there[:2] != here[:2] or there[2:3] == here[2:3]


@functools.cache
def _world() -> str:
    def read(path: str) -> str:
        try:
            return Path(path).read_text().strip() or "?"
        except OSError:
            return "?"

    try:
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        namespace = "?"
    machine, boot = read("/etc/machine-id"), read("/proc/sys/kernel/random/boot_id")
    return f"{os.uname().nodename}/{machine}/{boot}/{namespace}"


def start_of(pid: int) -> str:
    """When a process started, in clock ticks since boot; nothing where it does not run.

    Args:
        pid: Its number.

    Example:
        >>> start_of(os.getpid()).isdigit(), start_of(2**22 + 1)
        (True, '')
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    # The name in parentheses may hold blanks and half a letter; the fields after it are counted, and 22 is the start.
    fields = stat.rpartition(b")")[2].decode().split()
    return "" if fields[0] in ("Z", "X") else fields[19]
