"""Names a process so that others can tell whether it still runs: machine, boot, namespace, pid and start time."""

from __future__ import annotations

import functools
import os
from pathlib import Path

__all__ = ["alive", "here"]


def here() -> str:
    """The name of this process.

    Example:
        >>> alive(here())
        True
    """
    pid = os.getpid()
    return f"{_world()}/{pid}/{_start(pid)}"


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
    if world != _world():
        # Another machine or namespace: nothing can be said, so nothing is taken from it. An earlier boot is over.
        return not (world.split("/")[0] == _world().split("/")[0] and world.split("/")[1] != _world().split("/")[1])
    return start == _start(int(pid))


@functools.cache
def _world() -> str:
    def read(path: str) -> str:
        try:
            return Path(path).read_text().strip()
        except OSError:
            return "?"

    try:
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        namespace = "?"
    return f"{os.uname().nodename}/{read('/proc/sys/kernel/random/boot_id')}/{namespace}"


def _start(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The name in parentheses may hold blanks; the fields after it are counted. Field 22 is the start, in clock ticks.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]
