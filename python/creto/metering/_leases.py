"""Keeps an enforcer supplied with units leased from an authority, from a thread of its own.

More is asked for when half of a lease is spent, so that acts do not wait; an idle lease goes back.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from creto._in_thread import in_thread
from creto.errors import CretoError

if TYPE_CHECKING:
    from creto.metering._authority import Authority, DeadLease, Grant
    from creto.metering._quota import QuotaEnforcer

__all__ = ["Leases"]

_MARGIN = 0.9  # of a lease's life, after which it is not spent any more: clocks differ


class Leases:
    """The supply of one enforcer. Use it as a context manager, or `close` it: what is not spent goes back then.

    Args:
        quota: The enforcer; its rules with `share` = `store` are supplied.
        authority: Who hands out units.
        ttl: Seconds that a lease lives without being renewed.
        on_outage: `deny`, or `allow` acts beyond what is leased while the authority cannot be asked; `beyond`
            counts them.
        shard: Origin of the ledger's shard where this process records its acts; empty where it records none.
        relaxed: True where acts may be recorded later than they are done.
        settle: Settles leases of dead holders by their records, as far as it can; how many units that freed.

    Example:
        >>> import tempfile
        >>> from creto.metering import Leases, QuotaEnforcer, StoreAuthority
        >>> from creto.store import Store
        >>> quota = QuotaEnforcer([{"scope": "team", "meter": "m", "limit": 64, "share": "store"}])
        >>> with Store(tempfile.mkdtemp()) as store, Leases(quota, StoreAuthority(store)) as leases:
        ...     leases.supply(lambda: quota.consume_nowait(["acme", "t"], {"m": 1}))
        ...     quota.counters()[0]["used"]
        1
    """

    def __init__(
        self,
        quota: QuotaEnforcer,
        authority: Authority,
        *,
        ttl: float = 60.0,
        on_outage: Literal["deny", "allow"] = "deny",
        shard: str = "",
        relaxed: bool = False,
        settle: Callable[[Sequence[DeadLease]], int] | None = None,
    ) -> None:
        self.quota = quota
        self.authority = authority
        self.ttl = ttl
        self.on_outage = on_outage
        self.shard = shard
        self.relaxed = relaxed
        self.asked = 0
        """How often the authority was asked."""
        self.beyond = 0
        """Units allowed while it could not be."""
        self.failure: CretoError | None = None
        """Why it could not be asked, the last time; None once it could."""
        self._settle = settle
        self._settling = threading.Lock()
        self._freed = 0
        self.asking = threading.Lock()
        """Held while the authority is asked."""
        self._closed = False
        self._wake = quota.wake_fd()
        self._last: dict[tuple[Any, ...], int] = {}
        self._owed: list[tuple[dict[str, Any], int]] = []
        self._renewing = False
        self._begin()
        self._pid = os.getpid()
        quota.leases = self
        os.register_at_fork(after_in_child=_weak(self._after_fork))
        self._thread = threading.Thread(target=self._run, name="creto-leases", daemon=True)
        self._thread.start()

    def _begin(self) -> None:
        self.holder = f"{os.getpid()}-{os.urandom(8).hex()}"

    def _after_fork(self) -> None:
        # The wake-up belongs to the parent. The child asks when it has to, and its leases end by themselves. It has no
        # shard: what it leased and did not give back stays spent.
        self.asking = threading.Lock()
        self._settling = threading.Lock()
        self._owed = []
        self.shard = ""
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refill_blocking(self) -> int:
        """Asks the authority for what is wanted now; how many units came.

        Raises:
            CretoError: The authority could not be asked, and `on_outage` is `deny`.
        """
        with self.asking:
            needs = self.quota.lease_needs()
            return self._lease(needs) if needs else 0

    def supply(self, take: Callable[[], Any], timeout: float = 30.0) -> Any:
        """Calls `take`, asking the authority each time it fails for lack of leased units, until that has no more.

        Args:
            take: What takes or reserves units, and raises QuotaExceededError.
            timeout: Seconds, for an authority that answers and whose units others always take first.

        Raises:
            QuotaExceededError: There is no room, by the authority's own word; or the time is over, and `short` is true.
            CretoError: The authority could not be asked.
        """
        due = time.monotonic() + timeout
        while True:
            try:
                return take()
            except CretoError as error:
                if not self._lacks(error, due):
                    raise
            self.refill_blocking()

    async def supply_async(self, take: Callable[[], Any], timeout: float = 30.0) -> Any:
        """The same, with `take` on the event loop, and nothing taken once its caller was cancelled."""
        due = time.monotonic() + timeout
        while True:
            try:
                return take()
            except CretoError as error:
                if not self._lacks(error, due):
                    raise
            await in_thread(self.refill_blocking)

    def _lacks(self, error: CretoError, due: float) -> bool:
        """Whether to ask for units and try again.

        What was short is on the list of needs, or another thread has it from there and asks now: `refill_blocking`
        waits for that one, so each round has seen an answer that is newer than the refusal. An answer that there is no
        more makes the next refusal one of room, not of leased units.
        """
        return self.quota.short(error) and time.monotonic() < due

    def _lease(self, needs: list[dict[str, Any]]) -> int:
        now = time.time()
        self.asked += 1
        freed = self._freed
        try:
            grants = self._ask(needs, now)
            # Before anyone is refused, what the dead have left is looked through.
            short = [dict(grant.need) for grant in grants if not grant.units]
            if short and self._settle_dead() > freed:
                grants = [grant for grant in grants if grant.units] + self._ask(short, now)
        except CretoError as error:
            self.failure = error
            if self.on_outage == "deny":
                raise
            return sum(self._allow(need, now) for need in needs)
        self.failure = None
        usable = int((now + self.ttl * _MARGIN) * 1e6)
        back = [
            (g.need, g.units) for g in grants if not self.quota.grant(dict(g.need), g.held, usable, g.total) and g.units
        ]
        if back:
            self.authority.give_back(self.holder, back)
        return sum(g.units for g in grants) - sum(units for _, units in back)

    def _ask(self, needs: list[dict[str, Any]], now: float) -> list[Grant]:
        until = int((now + self.ttl) * 1e6)
        grants = self.authority.lease(self.holder, needs, until, shard=self.shard, relaxed=self.relaxed)
        # Its answer is all that this process has, and what that owes of it is taken up again.
        granted = {_identity(grant.need) for grant in grants}
        self._owed = [(lease, units) for lease, units in self._owed if _identity(lease) not in granted]
        return grants

    def _settle_dead(self) -> int:
        """Settles leases that have run out; how many units were freed so far, here or by another thread meanwhile."""
        if self._settle is not None:
            with self._settling:
                lost = self.authority.dead(int(time.time() * 1e6))
                self._freed += self._settle(lost) if lost else 0
        return self._freed

    def _allow(self, need: dict[str, Any], now: float) -> int:
        units = int(need["want"])
        self.beyond += units
        usable = int((now + min(self.ttl, 5.0)) * 1e6)
        return units if self.quota.grant(need, int(need["leased"]) + units, usable) else 0

    def tick(self) -> None:
        """Renews leases in use, gives idle ones back, and settles those of dead holders."""
        now = time.time()
        with self.asking:
            held = self.quota.leases_held()
            idle = [lease for lease in held if self._last.get(_identity(lease)) == lease["used"] < lease["leased"]]
            busy = [lease for lease in held if lease not in idle]
            self._last = {_identity(lease): int(lease["used"]) for lease in held}
            back = [(lease, self.quota.surrender(lease)) for lease in idle]
            self._owed += [(lease, units) for lease, units in back if units]
            self._give_owed()
            if busy:
                kept = self.authority.report(self.holder, busy, int((now + self.ttl) * 1e6))
                for lease, units in zip(busy, kept, strict=True):
                    self.quota.grant(lease, units, int((now + self.ttl * _MARGIN) * 1e6))
        self._settle_dead()

    def renew(self) -> None:
        """Lets go of all that is not spent: what is spent from now on is leased under the limits that hold now."""
        if self._pid != os.getpid():
            self._let_go()  # a fork has no thread for it
        elif not self._closed:
            self._renewing = True
            os.eventfd_write(self._wake, 1)

    def _let_go(self) -> None:
        with self.asking, contextlib.suppress(CretoError):
            # Also where nothing is left of one: what was spent of it is told with it.
            self._owed += [(lease, self.quota.surrender(lease)) for lease in self.quota.leases_held()]
            # Where the authority cannot be reached, they go back at the next tick, or by the ledger.
            self._give_owed()

    def _give_owed(self) -> None:
        """Gives back what this process has let go of, at the next tick where the authority is away."""
        if self._owed:
            try:
                self.authority.give_back(self.holder, self._owed)
            except CretoError as error:
                if not error.should_retry:
                    self._owed = []  # perhaps they are back: given back twice they would be handed out twice
                raise
            self._owed = []

    def _run(self) -> None:
        due = time.monotonic() + self.ttl / 3
        while not self._closed:
            readable, _, _ = select.select([self._wake], [], [], max(0.0, due - time.monotonic()))
            if self._closed:
                return
            # An outage is told by `failure`, and to whoever asks for units; this thread tries again.
            with contextlib.suppress(CretoError):
                if readable:
                    os.read(self._wake, 8)
                    if self._renewing:
                        self._renewing = False
                        self._let_go()
                    self.refill_blocking()
                if time.monotonic() >= due:
                    due = time.monotonic() + self.ttl / 3
                    self.tick()

    def close(self) -> None:
        """Gives back what was not spent."""
        if self._closed:
            return
        self._closed = True
        if self._pid == os.getpid():
            os.eventfd_write(self._wake, 1)
            self._thread.join()
        os.close(self._wake)
        self.quota.leases = None
        self._let_go()


def _weak(method: Callable[[], None]) -> Callable[[], None]:
    """Calls a method while its object lives, without keeping it alive: fork handlers cannot be taken back."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        living = reference()
        if living is not None:
            living()

    return call


def _identity(lease: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(lease[name] for name in ("organisation", "level", "name", "meter", "window", "end"))
