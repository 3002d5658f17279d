"""Reach: what one process decides binds in every other within a second.

A notice is a row of the transaction that decided; a datagram to every process of the folder is the fast way to hear of
it, and a look at the table every half second the net. It names what changed, and never carries it: whoever hears of a
change reads the store.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import secrets
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Self

from creto._wake import Wake
from creto.errors import ConnectionFailedError, ForkedError, InternalError, UnauthorizedError
from creto.store import Commit, Store

__all__ = ["EVERYTHING", "Follower", "Reach"]

EVERYTHING = "*"
"""The key that stands for all keys: more changed than can be told one by one."""
_POLL = 0.5
_STALE = 1.0
_PATIENCE = 5.0
_END = 30.0
_PENDING = 10_000
_BATCH = 1000


class Follower(AsyncIterator[str]):
    """The keys of one topic that change from now on; iterate it, and close it when done.

    A key that changes twice before it is taken comes once. `EVERYTHING` comes where too much was missed.

    Example:
        >>> import asyncio, tempfile
        >>> from creto.store import Store
        >>> async def main():
        ...     with Store(tempfile.mkdtemp()) as store, Reach(store) as reach:
        ...         async with reach.follow("policy") as changed:
        ...             reach.publish("policy", "installed")
        ...             return await anext(changed)
        >>> asyncio.run(main())
        'installed'
    """

    def __init__(self, reach: Reach, topic: str | None) -> None:
        self._reach = reach
        self._topic = topic
        self._keys: dict[str, None] = {}
        self._lock = threading.Lock()
        self._wake = Wake()
        self._pid = os.getpid()
        self._ended = False

    def _tell(self, topic: str, key: str) -> None:
        if self._topic is not None and topic not in {self._topic, EVERYTHING}:
            return
        with self._lock:
            if len(self._keys) >= _PENDING:
                self._keys = {EVERYTHING: None}
            else:
                self._keys[key] = None
            self._wake.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            if self._pid != os.getpid():
                raise ForkedError("this follower belongs to the parent process; follow again in the child")
            with self._lock:
                if self._ended:
                    raise StopAsyncIteration
                if self._keys:
                    key = next(iter(self._keys))
                    del self._keys[key]
                    return key
            await self._wake.wait()

    def close(self) -> None:
        """Ends the iteration."""
        with self._reach._following:
            self._reach._followers.discard(self)
        with self._lock:
            self._ended = True
            self._wake.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class Reach:
    """Notices between the processes of one state folder, or of one database.

    Args:
        store: Where the notices are.
        folder: The state folder, for the sockets; the store's own where there is none.

    Example:
        >>> import tempfile
        >>> from creto.store import Store
        >>> store = Store(tempfile.mkdtemp())
        >>> reach = Reach(store)
        >>> heard = []
        >>> reach.on("policy", heard.append)
        >>> reach.publish("policy", "installed")
        >>> reach.catch_up()
        >>> heard
        ['installed']
        >>> reach.close(); store.close()
    """

    def __init__(self, store: Store, folder: Path | None = None) -> None:
        self._store = store
        place = folder or store.folder
        self._run: Path | None = place / "run" if place else None
        self._calls: list[tuple[str, Callable[[str], None]]] = []
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._closed = False
        self._reset()
        store.listeners.append(self._committed)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._starting = threading.Lock()
        self._polling = threading.Lock()
        self._following = threading.Lock()
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._name = ""
        self._known: tuple[int, int, float] | None = None
        self._first = 0
        self._last = 0
        self._read_at = 0.0
        self._failure: str | None = None

    # --- telling ----------------------------------------------------------------------------------------------------

    def publish(self, topic: str, key: str) -> None:
        """Tells every process that something changed; what changed it is committed already.

        Where the change is a transaction of the store, call `tx.publish` in it: then neither comes without the other.

        Args:
            topic: What kind of thing, such as `policy`.
            key: Which one.
        """
        with self._store.begin() as tx:
            tx.publish(topic, key)

    def _committed(self, commit: Commit) -> None:
        if commit.notices:
            self._wake_all()

    def _wake_all(self) -> None:
        if self._run is None:
            return
        # Where nobody can listen, or no descriptor is left, the others hear by their poll: the change is made.
        with (
            contextlib.suppress(OSError),
            _opened(self._run) as folder,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
        ):
            out.setblocking(False)
            for path in self._run.glob("*.reach"):
                self._wake_one(out, folder, path.name)

    def _wake_one(self, out: socket.socket, folder: int, name: str) -> None:
        try:
            out.sendto(b"!", f"/proc/self/fd/{folder}/{name}")
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                # Its process has died: nobody is bound to it any more.
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)
            # A full queue has a wake-up in it already; all else is left to the poll.

    # --- hearing ----------------------------------------------------------------------------------------------------

    def follow(self, topic: str | None = None) -> Follower:
        """The keys of a topic that change after this call.

        Args:
            topic: Such as `oversight`; every topic where there is none.

        Example:
            async with reach.follow("oversight") as changed:
                async for request in changed: ...
        """
        self._start()
        follower = Follower(self, topic)
        with self._following:
            self._followers.add(follower)
        return follower

    def on(self, topic: str, call: Callable[[str], None]) -> None:
        """Calls back on the listening thread for each key of a topic that changes from now on.

        Whoever reads the store first and asks to be called after that misses nothing: where anything has changed since
        this reach began to listen, `EVERYTHING` comes at once.

        Args:
            topic: Such as `identity`.
            call: Takes the key; it must be quick. Where it raises, this process counts as out of reach, and so denies.

        Raises:
            ConnectionFailedError: The database leaves the listening thread without an answer.
        """
        self._start()
        with self._looking(_PATIENCE):
            self._calls.append((topic, call))
            missed = self._last != self._first
        if missed:
            call(EVERYTHING)

    @property
    def fresh(self) -> bool:
        """True while this process knows of everything decided until a second ago; where False, acts must be denied."""
        asked = self._pid == os.getpid() and self._thread is not None and self._failure is None
        if not asked or time.monotonic() - self._read_at > _STALE:
            try:
                self.catch_up()
            except Exception as error:  # noqa: BLE001 - whatever it is, as on the listening thread
                self._failure = str(error)
        return self._failure is None

    def require_fresh(self) -> None:
        """Does nothing while `fresh`.

        Raises:
            UnauthorizedError: What others decided cannot be read, so nothing can be allowed.
        """
        # Asked before every act, so what nearly always holds is looked at without a further call. Which process this is
        # does not matter to that: what was read before a fork is known after it, for as long as it is fresh.
        if self._failure is None and self._thread and time.monotonic() - self._read_at <= _STALE:
            return
        if not self.fresh:
            raise UnauthorizedError(
                f"denied: revocations and reloads by other processes cannot be read ({self._failure}); "
                f"see `creto doctor` for the state of `{self._store.place}`",
                retry_after=_POLL,
            )

    def catch_up(self) -> None:
        """Hears now what has been published, without waiting for the listening thread.

        Raises:
            ConnectionFailedError: The database cannot be reached, or leaves that thread without an answer.
        """
        self._start()
        # That thread looks every half second. Where its look lasts, the database takes questions and answers none:
        # another one would hang too, and with it the event loop that asks before each act.
        self._poll(_PATIENCE if self._failure is None else 0.2)

    def _start(self) -> None:
        if self._closed:
            raise InternalError("this reach is closed")
        if self._pid != os.getpid():
            if self._socket is not None:
                self._socket.close()  # the parent's name stays bound by the parent
            # What was told since the fork is told to the child too: it goes on where its parent stood.
            known = (self._first, self._last, self._read_at) if self._thread is not None else None
            self._followers = weakref.WeakSet()
            self._reset()
            self._known = known
        with self._starting:
            if self._thread is not None:
                return
            if self._known is not None:
                self._first, self._last, self._read_at = self._known
            else:
                self._first = self._last = self._newest()
                self._read_at = time.monotonic()
            self._bind()
            thread = threading.Thread(target=self._listen, name="creto-reach", daemon=True)
            self._thread = thread
            thread.start()
            atexit.register(_close, weakref.ref(self))

    def _bind(self) -> None:
        if self._run is None:
            return
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        listening.settimeout(_POLL)  # here, not on the thread: a close may come before that has begun
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}.reach"
        with _opened(self._run) as folder:
            listening.bind(f"/proc/self/fd/{folder}/{self._name}")
        self._socket = listening

    def _newest(self) -> int:
        from sqlalchemy import func, select

        from creto.store.tables import notices

        with self._store.read() as tx:
            return int(tx.scalar(select(func.max(notices.c.seq))) or 0)

    def _listen(self) -> None:
        pid = os.getpid()
        listening = self._socket
        while not self._closed and self._pid == pid:
            if listening is None:
                time.sleep(_POLL)
            else:
                try:
                    listening.recv(16)
                except TimeoutError:
                    pass
                except OSError:
                    return  # closed under us: the end
            if self._closed:
                return
            try:
                self._poll()
            except Exception as error:  # noqa: BLE001 - whatever it is, this process does not know what others decided
                self._failure = f"{type(error).__name__}: {error}"

    @contextlib.contextmanager
    def _looking(self, patience: float) -> Iterator[None]:
        """While one looks, no other does, and nothing is told."""
        if not self._polling.acquire(timeout=patience):
            raise ConnectionFailedError(f"the database at `{self._store.place}` does not answer")
        try:
            yield
        finally:
            self._polling.release()

    def _poll(self, patience: float = -1) -> None:
        from sqlalchemy import func, select

        from creto.store.tables import notices

        with self._looking(patience):
            more = True
            while more:
                asked = time.monotonic()
                with self._store.read() as tx:
                    rows = tx.all(
                        select(notices).where(notices.c.seq > self._last).order_by(notices.c.seq).limit(_BATCH)
                    )
                    oldest = tx.scalar(select(func.min(notices.c.seq))) if rows else None
                if rows and oldest is not None and self._last and oldest > self._last + 1:
                    self._dispatch(EVERYTHING, EVERYTHING)
                for row in rows:
                    self._dispatch(row.topic, row.key)
                    self._last = row.seq
                more = len(rows) == _BATCH
            # Of the last look alone: before it, more was decided than is known here.
            self._read_at = asked
            self._failure = None

    def _dispatch(self, topic: str, key: str) -> None:
        for wanted, call in tuple(self._calls):
            if topic in {wanted, EVERYTHING}:
                call(key)
        with self._following:
            followers = tuple(self._followers)
        for follower in followers:
            follower._tell(topic, key)

    # --- end --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stops listening and takes the socket away; a second call does nothing."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        with contextlib.suppress(ValueError):
            self._store.listeners.remove(self._committed)
        with self._following:
            followers = tuple(self._followers)
        for follower in followers:
            follower.close()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)  # wakes the thread
            self._socket.close()
        if self._run is not None and self._name:
            with contextlib.suppress(OSError):
                (self._run / self._name).unlink()
        if self._thread is not None and self._thread is not threading.current_thread():
            # It was woken, and is at one query at most: only where its database does not answer is it left behind.
            self._thread.join(timeout=_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """A folder's descriptor: by way of it a socket's path is short, which has room for 108 bytes only."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _close(reference: weakref.ref[Reach]) -> None:
    reach = reference()
    if reach is not None:
        reach.close()
