"""Figures for Prometheus: what has happened since the inbox was started, and how things stand when it is asked.

It reads the ledger and the store as any process on the folder may, and changes nothing. No label holds what an agent
can choose, so that none can flood whoever collects: names of agents, actions and resources are not among them.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from creto.audit._reading import Followers
from creto.audit._record import AuditRecord
from creto.config._patterns import SHORTEST_TOKEN
from creto.errors import InvalidInputError
from creto.messaging._rows import UNREAD
from creto.metering import StoreAuthority
from creto.oversight._request import GRACE_US
from creto.oversight._transitions import OPEN
from creto.runtime import running
from creto.store import Store
from creto.store.tables import mailbox, outgoing, oversight_requests

__all__ = ["Metrics"]

_ENDS = ("success", "failure", "denied", "quota")
_ANSWERS = ("approved", "denied", "expired", "cancelled")
_NAMED_LEVELS = ("organisation", "team")
"""Operators name these; agents are too many for a series each."""


class Metrics(Collector):
    """The figures of one state folder.

    Args:
        folder: The state folder.
        store: Its store.
        token: What a reader has to show; at least 16 characters.

    Raises:
        InvalidInputError: The token is shorter.

    Example:
        >>> import tempfile, creto
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     metrics = Metrics(layer.parts.folder, layer.parts.store, "4f0c9d0bba2c4ba6")
        ...     layer.perform_blocking(layer.agent("researcher"), "tool:call", "add", lambda: 1 + 1)
        ...     'creto_acts_total{outcome="success"} 1.0' in metrics.page("text/plain")[0].decode()
        2
        True
    """

    def __init__(self, folder: Path, store: Store, token: str) -> None:
        if len(token) < SHORTEST_TOKEN:
            raise InvalidInputError(
                f"`oversight.metrics_token` has {len(token)} characters; give at least {SHORTEST_TOKEN}, "
                "such as `openssl rand -hex 16` prints"
            )
        self._folder = folder
        self._store = store
        self._token = token.encode()
        self._followers = Followers(folder / "ledger", from_start=False)
        self._acts: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def opened_by(self, token: str) -> bool:
        """True where this is the token."""
        return hmac.compare_digest(self._token, token.encode("utf-8", "surrogatepass"))

    def page(self, accept: str) -> tuple[bytes, str]:
        """The figures as text, and its media type: OpenMetrics 1.0 where it is accepted, else Prometheus's own form."""
        encode, media = choose_encoder(accept)
        with self._lock:
            return encode(self._registry), media

    def collect(self) -> Iterator[Metric]:
        """Each figure, for the registry; it reads what the ledger has got since it was last asked."""
        while records := self._followers.poll():
            for record in records:
                self._count(record)
        acts = CounterMetricFamily("creto_acts", "Acts that ended, by how.", labels=["outcome"])
        for end in _ENDS:
            acts.add_metric([end], self._acts[end])
        answers = CounterMetricFamily("creto_oversight_answers", "Oversight requests that ended.", labels=["answer"])
        for answer in _ANSWERS:
            answers.add_metric([answer], self._answers[answer])
        yield from (acts, answers, *self._ledger(), *self._waiting(), *self._quotas())
        yield GaugeMetricFamily("creto_sandboxes_claimed", "Sandboxes in use.", value=len(running(self._folder)))

    def _count(self, record: AuditRecord) -> None:
        if record.kind == "outcome":
            self._acts[record.ended] += 1
        elif record.kind == "refusal":
            self._acts["quota" if record.detail.get("refused") == "quota" else "denied"] += 1
        elif record.what.startswith("oversight:"):
            self._answers[record.what.removeprefix("oversight:")] += 1

    def _ledger(self) -> Iterator[Metric]:
        records, behind = self._followers.reached()
        yield GaugeMetricFamily("creto_ledger_records", "Records in the ledger.", value=records)
        text = "Records that no signed checkpoint covers yet."
        yield GaugeMetricFamily("creto_ledger_unsealed_records", text, value=behind)

    def _waiting(self) -> Iterator[Metric]:
        now = time.time_ns() // 1000
        requests, letters, sent = oversight_requests.c, mailbox.c, outgoing.c
        asked = select(func.count(), func.min(requests.created)).where(
            requests.state.in_(OPEN), requests.expiry > now + GRACE_US
        )
        unread = select(func.count()).where(letters.state.in_(UNREAD), letters.expires > now // 10**6)
        unsent = select(func.count()).where(sent.state == "waiting")
        with self._store.read() as tx:
            waiting = tx.first(asked)
            figures = {
                "creto_mailbox_messages": (tx.scalar(unread), "Messages that no recipient has acknowledged."),
                "creto_outgoing_messages": (tx.scalar(unsent), "Messages to other machines without a receipt."),
            }
        count, oldest = tuple(waiting) if waiting is not None else (0, None)
        age = 0.0 if oldest is None else max(0.0, (now - (oldest >> 12)) / 1e6)
        yield GaugeMetricFamily("creto_oversight_pending", "Oversight requests that wait for an answer.", value=count)
        text = "For how long the oldest oversight request has waited."
        yield GaugeMetricFamily("creto_oversight_oldest_pending_seconds", text, value=age)
        for name, (value, text) in figures.items():
            yield GaugeMetricFamily(name, text, value=int(value or 0))

    def _quotas(self) -> Iterator[Metric]:
        named = ["level", "name", "meter", "window"]
        used = GaugeMetricFamily(
            "creto_quota_used", "Used of a shared quota, as processes have reported it.", labels=named
        )
        limit = GaugeMetricFamily("creto_quota_limit", "Its limit.", labels=named)
        text = "Shared quotas that are used up."
        full = GaugeMetricFamily("creto_quotas_exhausted", text, labels=["level", "meter"])
        exhausted: Counter[tuple[str, str]] = Counter()
        for row in StoreAuthority(self._store).usage(time.time_ns() // 1000):
            exhausted[row["level"], row["meter"]] += row["used"] >= row["limit"]
            if row["level"] in _NAMED_LEVELS:
                labels = [str(row[name]) for name in named]
                used.add_metric(labels, row["used"])
                limit.add_metric(labels, row["limit"])
        for (level, meter), number in sorted(exhausted.items()):
            full.add_metric([level, meter], number)
        yield from (used, limit, full)
