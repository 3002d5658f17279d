"""Tries each backend for real: starts a sandbox, and tries to get out of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from creto.errors import CretoError
from creto.runtime._changes import Change
from creto.runtime._pool import Pool

__all__ = ["examine"]

# Each is run inside; what it prints says whether the way out was open.
_TRIES = {
    "the machine's users stay hidden": "cat /etc/shadow >/dev/null 2>&1 && echo open || echo shut",
    "the machine's processes stay hidden": f"test -e /proc/{os.getpid()}/root/etc && echo open || echo shut",
    "no way to a literal address": (
        "timeout 5 bash -c '</dev/tcp/192.0.2.1/80 && cat' 2>/dev/null | grep -q . && echo open || echo shut"
    ),
    "nothing is mounted or loaded": "mount -t tmpfs x /mnt >/dev/null 2>&1 && echo open || echo shut",
}


class _Nobody:
    """Says no to all that leaves, and yes to the tries themselves."""

    async def egress(self, host: str, port: int, scheme: str | None) -> bool:
        return False

    async def command(self, argv: Sequence[str]) -> bool:
        return True

    async def changes(self, changes: list[Change]) -> list[Change]:
        return []


async def examine(state_folder: str | os.PathLike[str], backends: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Starts one sandbox of each backend and tries it.

    Args:
        state_folder: creto's state folder.
        backends: Which; all that this build has, unless said.

    Returns:
        For each backend its name and its checks: name, whether it is as it should be, and what was seen.
    """
    from creto import _core

    return [{"backend": name, "checks": await _examine(state_folder, name)} for name in backends or _core.BACKENDS]


async def _examine(state_folder: str | os.PathLike[str], backend: str) -> list[dict[str, Any]]:
    checks: list[dict[str, Any]] = []

    def note(check: str, ok: bool, text: str) -> None:
        checks.append({"check": check, "ok": ok, "text": text})

    pool = Pool({"warm_pool_min_size": 0, "warm_pool_max_size": 1}, state_folder, backend=backend)
    with tempfile.TemporaryDirectory(prefix="creto-doctor-") as folder:
        (Path(folder) / "known").write_text("known\n")
        try:
            async with pool, pool.claim("spiffe://creto.local/agent/doctor", folder, _Nobody()) as box:
                result = await box.run(["bash", "-c", "cat known; echo new > new"])
                note("a program runs", result.stdout == b"known\n", f"exit status {result.status}")
                kept = not (Path(folder) / "new").exists() and [c.path for c in await box.changes()] == ["new"]
                note(
                    "changes are held back",
                    kept,
                    "a new file is in the layer, not in the folder" if kept else "they leak",
                )
                for name, attempt in _TRIES.items():
                    tried = await box.run(["bash", "-c", attempt])
                    said = (tried.stdout or tried.stderr).decode(errors="replace").strip()
                    note(name, said == "shut", said or f"exit status {tried.status}")
        except CretoError as error:
            note("a sandbox starts", False, str(error))
    return checks
