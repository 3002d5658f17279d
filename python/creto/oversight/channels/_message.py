"""What a channel has to say, and what a channel is."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Protocol

from creto._plain import plain, short, values
from creto.oversight._request import Request
from creto.oversight.channels._alert import Alert

__all__ = ["Channel", "Message"]


@dataclass(frozen=True, slots=True)
class Message:
    """An announcement: enough to know what it is about, never enough to decide by.

    Args:
        link: The request's page in the inbox; None where no inbox is known.
        late: True where it is told because nobody has answered so far.

    Example:
        >>> import tempfile, creto
        >>> from creto import _core
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     desk = layer.parts.desk
        ...     act = _core.Act(layer.agent("buyer").id, "tool:call", "send_money", context={"amount": 250})
        ...     async def ask():
        ...         try:
        ...             await desk.ask(act, ["payments"], hold=0)
        ...         except creto.OversightRequiredError:
        ...             return desk.pending()[0]
        ...     request = layer.call_blocking(ask)
        >>> Message(request, None).title
        'buyer asks to tool:call: send_money'
    """

    request: Request
    link: str | None
    late: bool = False

    @property
    def title(self) -> str:
        """One line."""
        asks = f"{self.agent} asks to {plain(self.request.action, most=80)}: {plain(self.request.resource, most=120)}"
        return f"No answer yet: {asks}" if self.late else asks

    @property
    def agent(self) -> str:
        """The agent's short name."""
        return short(self.request.agent)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Names and values, for people."""
        request = self.request
        facts = [
            ("Agent", plain(request.agent, most=200)),
            ("Action", plain(request.action, most=80)),
            ("Resource", plain(request.resource, most=500)),
            ("Policy", ", ".join(plain(policy, most=120) for policy in request.policies)),
        ]
        if request.chain:
            facts.insert(1, ("For", " → ".join(short(link) for link in request.chain)))
        facts += [(name, text) for name, text in values(request.context)[:8]]
        if uses := request.uses:
            facts.append(("Cost", ", ".join(uses)))
        if self.late:
            facts.append(("Asked", _moment(request.created_us)))
        return facts

    @property
    def until(self) -> str:
        """When no answer becomes a no."""
        return _moment(self.request.answer_by_us)


class Channel(Protocol):
    """A way to announce.

    Example:
        >>> class Printed:
        ...     name, alerts = "printed", False
        ...     def wants(self, request): return "payments" in request.policies
        ...     def send(self, message): print(message.title); return "printed"
        ...     def send_alert(self, alert): raise NotImplementedError
        >>> channel: Channel = Printed()
    """

    @property
    def name(self) -> str:
        """The name that announcements are recorded under."""
        ...

    @property
    def alerts(self) -> bool:
        """True where quotas that run low are told here."""
        ...

    def wants(self, request: Request) -> bool:
        """True where this request is to be announced here."""
        ...

    def send(self, message: Message) -> str:
        """Sends it once, and waits; returns what the other side said.

        Raises:
            CretoError: It was not taken; `should_retry` says whether another try may help.
        """
        ...

    def send_alert(self, alert: Alert) -> str:
        """Says once that a quota runs low, and waits; returns what the other side said.

        Raises:
            CretoError: It was not taken; `should_retry` says whether another try may help.
        """
        ...


def _moment(micros: int) -> str:
    return f"{dt.datetime.fromtimestamp(micros / 1e6, dt.UTC):%Y-%m-%d %H:%M} UTC"
