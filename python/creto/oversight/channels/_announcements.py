"""Sends announcements: the one layer that tries again, and the one that writes down how it went."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from creto.errors import CretoError
from creto.oversight import _transitions as transitions
from creto.oversight._request import Request
from creto.oversight.channels._alert import Alert
from creto.oversight.channels._email import Email
from creto.oversight.channels._message import Channel, Message
from creto.oversight.channels._slack import Slack
from creto.oversight.channels._webhook import Webhook
from creto.store import Store, Transaction
from creto.store.tables import announcements, approvers, meta

if TYPE_CHECKING:
    from creto.config import Settings

__all__ = ["INBOX", "Announcements"]

INBOX = "oversight.inbox_url"
"""Under this name the store keeps where the inbox was last served."""
_ATTEMPTS = 6
_FIRST = 0.5
_LONGEST = 30.0
_STALE_US = 900_000_000  # longer than all tries of one process take
_LOOKS = 2.0
"""Seconds between two looks at what waits for its time."""


class Announcements:
    """Sends each request over each channel that wants it, on threads of its own.

    Args:
        store: Where outcomes are written.
        channels: The channels.
        url: The inbox as approvers reach it; where none is given, where it was last served.
        after: Seconds without an answer after which a channel, by its name, is told at all; else it is told at once.

    Example:
        >>> import tempfile
        >>> from creto.config import load
        >>> from creto.store import Store
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     announcements = Announcements(store, [Slack("ops", "https://hooks.example.org/T0/B0/x")])
        ...     announcements.resume()  # what another process had left unsent
        ...     announcements.close()
        0
    """

    def __init__(
        self,
        store: Store,
        channels: Sequence[Channel],
        *,
        url: str | None = None,
        after: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._store = store
        self._channels = list(channels)
        self._url = url
        self._after = after
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="creto-announce")  # has no thread until there is work
        self._watching = False

    @classmethod
    def configured(cls, store: Store, settings: Settings) -> Announcements:
        """The channels of the configuration, and mail to approvers who have an address."""
        ours = settings.oversight
        channels: list[Channel] = []
        if ours.slack_webhook_url is not None:
            channels.append(Slack("default", ours.slack_webhook_url.get_secret_value(), alerts=True))

        def email(name: str, to: Callable[[Request], Sequence[str]], alerts: Sequence[str] = ()) -> None:
            if ours.email_smtp_host is None:
                return
            password = ours.email_smtp_password.get_secret_value() if ours.email_smtp_password else ""
            channels.append(
                Email(
                    name,
                    to,
                    ours.email_from or f"creto@{ours.email_smtp_host}",
                    ours.email_smtp_host,
                    ours.email_smtp_port,
                    tls=ours.email_smtp_tls,
                    login=(ours.email_smtp_user, password) if ours.email_smtp_user else None,
                    alerts=alerts,
                )
            )

        email("approvers", lambda request: _addresses(store, request))
        after: dict[str, float] = {}
        for channel in settings.channels:
            known = len(channels)
            policies = frozenset(channel.policies)
            if channel.kind == "email":
                to = tuple(channel.to)
                email(
                    channel.name,
                    lambda r, p=policies, to=to: to if not p or p & set(r.policies) else (),  # type: ignore[misc]
                    to if channel.alerts else (),
                )
            elif channel.url is not None:
                url = channel.url.get_secret_value()
                if channel.kind == "slack":
                    channels.append(Slack(channel.name, url, channel.policies, alerts=channel.alerts))
                elif channel.secret is not None:
                    secret = channel.secret.get_secret_value()
                    channels.append(Webhook(channel.name, url, secret, channel.policies, alerts=channel.alerts))
            if channel.after_seconds:
                after |= {made.name: channel.after_seconds for made in channels[known:]}
        return cls(store, channels, url=ours.inbox_url, after=after)

    def wanted(self, request: Request) -> dict[str, float]:
        """Names of the channels that want a request, each with the seconds after which it does."""
        wanting = (channel.name for channel in self._channels if channel.wants(request))
        return {name: self._after.get(name, 0.0) for name in wanting}

    def announce(self, request: Request) -> None:
        """Starts telling; failures are recorded, not raised."""
        for channel in self._channels:
            if channel.name not in self._after and channel.wants(request):
                self._start(self._send, channel, request)
        self._watch()

    def _watch(self) -> None:
        if self._after and not self._watching:
            self._watching = True
            threading.Thread(target=self._keep_watch, name="creto-escalate", daemon=True).start()

    def _keep_watch(self) -> None:
        while not self._stop.wait(_LOOKS):
            with suppress(CretoError):  # where the store cannot be read now, what is due stays so
                self.resume()

    def alert(self, alert: Alert) -> bool:
        """Starts telling that a quota runs low; of all processes that notice, one tells.

        Returns:
            False where it was told before, or nobody wants to know.
        """
        wanting = [channel for channel in self._channels if channel.alerts]
        if not wanting or self._stop.is_set():
            return False
        with self._store.begin() as tx:
            if not tx.insert_once(meta, name=f"alert/{alert.id}", value=str(alert.at)):
                return False
        for channel in wanting:
            self._start(self._send_alert, channel, alert)
        return True

    def _start(self, work: Callable[[Channel, Any], None], channel: Channel, what: Request | Alert) -> None:
        with suppress(RuntimeError):  # closed meanwhile: it stays written as unsent, and another process sends it
            self._pool.submit(work, channel, what)

    def _send_alert(self, channel: Channel, alert: Alert) -> None:
        attempts, sent, said = self._keep_trying(lambda: channel.send_alert(alert))
        if attempts:
            with self._store.begin() as tx:
                tx.outbox(
                    {
                        "who": alert.name,
                        "what": "quota:alerted" if sent else "quota:alert-failed",
                        "resource": alert.meter,
                        "why": channel.name,
                        "detail": {"percent": str(alert.percent), "attempts": str(attempts), "said": said[:500]},
                    }
                )

    def resume(self) -> int:
        """Sends what is due by now: what waits for its time, and what a process that is gone had left unsent.

        Of all processes that look, one sends.

        Returns:
            How many announcements began.
        """
        self._watch()
        state, since = announcements.c.state, announcements.c.updated
        with self._store.read() as tx:
            stale = ((tx.now >> 12) - _STALE_US) << 12
            due = ((state == "waiting") & (since <= tx.now)) | ((state == "sending") & (since < stale))
            rows = tx.all(select(announcements).where(due))
        channels, began = {channel.name: channel for channel in self._channels}, 0
        for row in rows:
            channel = channels.get(row.channel)
            if channel is None:
                continue  # another process may know it
            this = (announcements.c.request == row.request) & (announcements.c.channel == row.channel)
            with self._store.begin() as tx:
                request = transitions.find(tx, row.request)
                now = "sending" if request.open else "answered"
                ours = tx.swap(announcements, this & (since == row.updated), state=now, updated=tx.now)
            if ours and request.open:
                self._start(self._send, channel, request)
                began += 1
        return began

    def close(self) -> None:
        """Stops trying; what is being sent is let go, and stays written as unsent."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _send(self, channel: Channel, request: Request) -> None:
        message = Message(request, self._link(request), late=channel.name in self._after)
        attempts, sent, said = self._keep_trying(lambda: channel.send(message))
        if attempts:
            with self._store.begin() as tx:
                self._wrote(tx, channel.name, request, sent=sent, attempts=attempts, said=said)

    def _keep_trying(self, send: Callable[[], str]) -> tuple[int, bool, str]:
        """How often it was tried, whether it was taken, and what the other side said; 0 times where we are closing."""
        attempts, said, wait = 0, "", _FIRST
        while attempts < _ATTEMPTS and not self._stop.is_set():
            attempts += 1
            try:
                return attempts, True, send()
            except CretoError as error:
                said = str(error)
                if not error.should_retry:
                    break
                # Full jitter: what failed together does not come back together.
                pause = max(random.uniform(0, wait), error.retry_after or 0.0)  # noqa: S311 - no secret
                wait = min(_LONGEST, wait * 2)
                if attempts < _ATTEMPTS and self._stop.wait(min(pause, 120.0)):
                    return 0, False, said
            except Exception as error:  # noqa: BLE001 - a fault of ours; on this thread nobody else would ever see it
                said = f"{type(error).__name__}: {error}"
                break
        return attempts, False, said

    def _wrote(self, tx: Transaction, channel: str, request: Request, *, sent: bool, attempts: int, said: str) -> None:
        values = {"state": "sent" if sent else "failed", "attempts": attempts, "detail": said[:500], "updated": tx.now}
        where = (announcements.c.request == request.id) & (announcements.c.channel == channel)
        if not tx.swap(announcements, where, **values):
            tx.insert_once(announcements, request=request.id, channel=channel, **values)
        tx.outbox(
            {
                "who": request.agent,
                "what": "oversight:announced" if sent else "oversight:announcement-failed",
                "resource": request.resource,
                "why": channel,
                "act": request.ledger_act,
                "detail": {"request": request.id, "attempts": str(attempts), "said": said[:500]},
            }
        )
        tx.publish(transitions.TOPIC, request.id)

    def _link(self, request: Request) -> str | None:
        url = self._url
        if url is None:
            with self._store.read() as tx:
                url = tx.scalar(select(meta.c.value).where(meta.c.name == INBOX))
        return f"{url.rstrip('/')}/r/{request.id}" if url else None


def _addresses(store: Store, request: Request) -> list[str]:
    with store.read() as tx:
        rows = tx.all(select(approvers).where(approvers.c.state == "active"))
    wanted = set(request.policies) | {"*"}
    return sorted({row.channels["email"] for row in rows if row.channels.get("email") and wanted & set(row.policies)})
