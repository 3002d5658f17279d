"""A pool of sandboxes that wait started."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from creto import _bridge
from creto._beside import beside
from creto.errors import InvalidInputError, SandboxSpawnFailedError
from creto.runtime._box import Box, Hooks
from creto.runtime._registry import clean, enter, leave
from creto.runtime._runsc import find_runsc

if TYPE_CHECKING:
    from creto import _core

__all__ = ["Pool"]

_MEASURED_FOR = 86_400
_SHOWN = ("COLORTERM", "LANG", "LANGUAGE", "NO_COLOR", "TERM", "TZ")
_SETTINGS = (
    "cpu_limit_milli",
    "default_backend",
    "disk_limit_bytes",
    "hosts",
    "max_open_files",
    "max_processes",
    "memory_limit_bytes",
    "scratch_limit_bytes",
    "trees",
    "warm_pool_max_size",
    "warm_pool_min_size",
)


class Pool:
    """Sandboxes that wait started, so that a claim takes milliseconds. Each serves one agent and is gone.

    Args:
        settings: The section `[runtime]` of the configuration, as an object or a mapping.
        state_folder: creto's state folder; no sandbox ever sees it.
        backend: `gvisor` or `process`; the configuration's `default_backend` unless said.
        hosts: Names that lead to an address of your choice, `{"packages.example": "127.0.0.1:8080"}`: the only way to a
            private or loopback address.
        protected: Further files and folders that no working folder may hold: keys, configuration.
        trees: Further folders of this machine that sandboxes may read, at the same path.

    Example:
        >>> pool = Pool({"warm_pool_min_size": 1}, "/tmp/creto-example")
        >>> pool.backend
        'gvisor'
    """

    def __init__(
        self,
        settings: Any,
        state_folder: str | os.PathLike[str],
        *,
        backend: str | None = None,
        hosts: Mapping[str, str] | None = None,
        protected: Sequence[str | os.PathLike[str]] = (),
        trees: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        self._settings = _as_mapping(settings)
        self.backend: str = backend or self._settings.get("default_backend", "gvisor")
        self._state_folder = Path(state_folder)
        self._hosts = {**self._settings.pop("hosts", {}), **(hosts or {})}
        self._protected = [Path(state_folder), *map(Path, protected)]
        self._trees = [*map(Path, (*self._settings.pop("trees", ()), *trees)), *_environment_trees()]
        self._pool: _core.SandboxPool | None = None
        self._lock: Any = None

    async def start(self, *, warm: int = 0, seconds: float = 120.0) -> None:
        """Starts to fill the pool; done by the first claim too.

        Args:
            warm: How many sandboxes to wait for.
            seconds: How long at most.

        Raises:
            NotFoundError: The backend is not on this machine; the text says how to get it.
            SandboxSpawnFailedError: A sandbox did not start; the text says why.
        """
        import anyio

        if self._lock is None:
            self._lock = anyio.Lock()
        async with self._lock:
            if self._pool is None:
                spec = await anyio.to_thread.run_sync(self._spec)
                from creto import _core

                made: _core.SandboxPool = await _bridge.wait(
                    lambda bridge, token: _core.SandboxPool.start(spec, bridge, token)
                )
                self._pool = made
            pool = self._pool
        if warm:
            await _bridge.wait(lambda bridge, token: pool.warm(warm, seconds, bridge, token))

    def _spec(self) -> str:
        from creto import _core

        if self.backend not in _core.BACKENDS:
            known = ", ".join(_core.BACKENDS)
            raise InvalidInputError(f"`{self.backend}` is no backend; known are {known}")
        # Before gVisor is looked for: who is not root would else build it first, and in vain.
        if os.geteuid() != 0:
            raise SandboxSpawnFailedError(
                f"the backend `{self.backend}` makes mounts and network namespaces, which only root may here; "
                'run this as root (`sudo "$(command -v creto)" ...`), whose state folder is another: '
                "programs inside never are"
            )
        runsc = str(find_runsc()) if self.backend == "gvisor" else None
        for tree in self._trees:
            _require_apart(tree, self._protected)
        _make_room()
        prefix = Path(sys.base_prefix)
        python = Path(getattr(sys, "_base_executable", sys.executable))
        folder = self._state_folder / "sandbox"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        clean(self._state_folder)
        spec = {
            "folder": str(folder),
            "backend": self.backend,
            "runsc": runsc,
            "python": str(python),
            "prefix": str(prefix),
            "trees": [str(tree) for tree in self._trees if tree.is_dir()],
            "hosts": self._hosts,
            "protected": [str(path) for path in self._protected],
            "settings": {**self._settings, "default_backend": self.backend},
        }
        return json.dumps(spec)

    @property
    def fill(self) -> dict[str, int]:
        """How many sandboxes are idle, starting and claimed."""
        return self._pool.fill() if self._pool is not None else {"idle": 0, "starting": 0, "claimed": 0}

    async def facts(self) -> dict[str, Any]:
        """What its sandboxes are made of: digests of image and backend, configuration, kernel, limits.

        The image's manifest is measured at most once a day, and the time of that is told: it takes a second or more.
        """
        import anyio

        await self.start()
        facts: dict[str, Any] = json.loads(self._started.facts())
        cache = self._state_folder / "sandbox.image.json"
        key = await anyio.to_thread.run_sync(_image_key, facts["imageTrees"])
        with contextlib.suppress(OSError, ValueError):
            kept = json.loads(await anyio.to_thread.run_sync(cache.read_text))
            if kept.pop("key") == key and time.time() - kept["imageMeasuredAt"] < _MEASURED_FOR:
                return {**facts, **kept}
        measured = {"imageDigest": await _bridge.wait(self._started.measure), "imageMeasuredAt": int(time.time())}
        await anyio.to_thread.run_sync(_keep, cache, json.dumps({**measured, "key": key}))
        return {**facts, **measured}

    @property
    def _started(self) -> _core.SandboxPool:
        assert self._pool is not None
        return self._pool

    @asynccontextmanager
    async def claim(
        self,
        agent_id: str,
        workdir: str | os.PathLike[str],
        hooks: Hooks,
        *,
        secrets: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        hidden: Sequence[str] = (),
        seconds: float = 120.0,
    ) -> AsyncIterator[Box]:
        """Takes a sandbox for one agent and one working folder; it is gone at the end of the `async with`.

        Args:
            agent_id: The agent's SPIFFE id.
            workdir: The folder to work in: read as it is, written to a layer that only `Box.apply` carries out.
            hooks: Who decides about connections, programs and changes.
            secrets: Environment that is never in a file, an argument, a log or an attestation.
            env: More environment; the caller's own is not passed on.
            hidden: Paths below the folder that are not in view inside.
            seconds: How long to wait for a sandbox.

        Raises:
            InvalidInputError: The folder holds creto's own state, keys or configuration, or lies in them.
            SandboxSpawnFailedError: No sandbox could be started.
            TimeoutError: All of the pool's sandboxes are in use.
        """
        import anyio

        await self.start()
        folder = await anyio.to_thread.run_sync(Path(workdir).resolve)
        home = Path.home()
        surroundings = {**_surroundings(home), **(env or {})}
        lease = await _bridge.wait(
            lambda bridge, token: self._started.claim(
                agent_id,
                str(folder),
                list(hidden),
                str(home),
                surroundings,
                dict(secrets or {}),
                seconds,
                bridge,
                token,
            )
        )
        noted = {"sandbox": lease.id, "backend": self.backend, "agent": agent_id, "workdir": str(folder)}
        try:
            await anyio.to_thread.run_sync(enter, self._state_folder, noted)
            async with beside() as tasks:
                box = Box(lease, hooks, folder, tasks, hidden)
                tasks.start_soon(box._serve)
                tasks.start_soon(box._watch)
                try:
                    yield box
                finally:
                    box._gone = True
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await _bridge.wait(lease.close)
                finally:
                    leave(self._state_folder, noted["sandbox"])

    async def close(self) -> None:
        """Ends every sandbox that waits."""
        import anyio

        pool, self._pool = self._pool, None
        if pool is not None:
            with anyio.CancelScope(shield=True):
                await _bridge.wait(pool.close)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _make_room() -> None:
    """Takes all descriptors that this process may have: a sandbox's connections, let through or not, take some each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _require_apart(tree: Path, protected: Sequence[Path]) -> None:
    """Refuses a folder for sandboxes to read that holds keys or configuration, or lies in them."""
    shown = tree.resolve()
    for path in protected:
        own = path.resolve()
        if shown == own or own in shown.parents or shown in own.parents:
            raise InvalidInputError(
                f"`{tree}` cannot be in view of sandboxes: `{own}`, which is creto's own, lies there; "
                "name other folders in `runtime.trees`, or keep the state elsewhere (`CRETO_STATE`)"
            )


def _image_key(trees: list[str]) -> str:
    """Changes when a package is installed, or the list of trees is another; the measurement looks at every file."""
    marks = []
    for tree in [*trees, "/var/lib/dpkg/status", "/var/lib/rpm"]:
        with contextlib.suppress(OSError):
            found = Path(tree).stat()
            marks.append((tree, found.st_dev, found.st_ino, found.st_mtime_ns))
    return hashlib.sha256(repr(marks).encode()).hexdigest()


def _keep(file: Path, text: str) -> None:
    """Puts a text in the place of a file's, whoever else does the same; where that cannot be, it is measured again."""
    draft = file.with_name(f"{file.name}.{os.getpid()}-{os.urandom(4).hex()}")
    with contextlib.suppress(OSError):
        try:
            draft.write_text(text)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)


def _as_mapping(settings: Any) -> dict[str, Any]:
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        dump = getattr(settings, "model_dump", None)
        settings = (
            dump()
            if dump is not None
            else {name: getattr(settings, name) for name in _SETTINGS if hasattr(settings, name)}
        )
    return {name: settings[name] for name in _SETTINGS if settings.get(name) is not None}


def _environment_trees() -> list[Path]:
    """The virtual environment that is in use, if any, so that its packages are there inside too."""
    active = os.environ.get("VIRTUAL_ENV") or (sys.prefix if sys.prefix != sys.base_prefix else None)
    return [Path(active).resolve()] if active else []


def _surroundings(home: Path) -> dict[str, str]:
    """The environment that every program gets: paths, and how the terminal and the user's language are."""
    folders = [str(tree / "bin") for tree in _environment_trees()]
    folders += [
        str(Path(sys.base_prefix) / "bin"),
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/local/go/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    shown = {name: value for name, value in os.environ.items() if name in _SHOWN or name.startswith("LC_")}
    return {
        **shown,
        "PATH": ":".join(dict.fromkeys(folders)),
        "HOME": str(home),
        "USER": "agent",
        "LOGNAME": "agent",
        "SHELL": "/bin/bash",
        "CRETO_SANDBOX": "1",
    }
