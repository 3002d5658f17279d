"""A Slack incoming webhook: one message in Block Kit, with a button that opens the inbox."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from creto.oversight._request import Request
from creto.oversight.channels._alert import Alert
from creto.oversight.channels._http import post
from creto.oversight.channels._message import Message

__all__ = ["Slack"]


class Slack:
    """Posts requests to a Slack channel.

    Args:
        name: For people, and for the record.
        url: The incoming webhook's URL, which is a secret.
        policies: Only requests under these; all where there are none.
        alerts: Whether quotas that run low are told too.

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
        >>> slack = Slack("ops", "https://hooks.example.org/T0/B0/x", ["payments"])
        >>> slack.wants(request), len(slack.blocks(Message(request, "https://inbox.example.org/r/1"))["blocks"]) > 1
        (True, True)
    """

    def __init__(self, name: str, url: str, policies: Sequence[str] = (), *, alerts: bool = False) -> None:
        self.name = f"slack:{name}"
        self._url = url
        self._policies = frozenset(policies)
        self.alerts = alerts

    def wants(self, request: Request) -> bool:
        """True where this request is to be announced here."""
        return not self._policies or bool(self._policies & set(request.policies))

    def send(self, message: Message) -> str:
        """Posts it once."""
        return post(
            self._url, json.dumps(self.blocks(message)).encode(), {"Content-Type": "application/json; charset=utf-8"}
        )

    def send_alert(self, alert: Alert) -> str:
        """Posts once that a quota runs low."""
        body = json.dumps(_message(alert.title, alert.facts, None)).encode()
        return post(self._url, body, {"Content-Type": "application/json; charset=utf-8"})

    @staticmethod
    def blocks(message: Message) -> dict[str, Any]:
        """The message: facts are plain text, in which Slack reads no mark-up, links or mentions."""
        made = _message(message.title, message.facts, f"No answer by {message.until} counts as no.")
        if message.link is not None:
            label = {"type": "plain_text", "text": "Open in the inbox", "emoji": False}
            made["blocks"].append(
                {
                    "type": "actions",
                    "elements": [
                        {"type": "button", "text": label, "url": message.link, "action_id": "open", "style": "primary"}
                    ],
                }
            )
        return made


def _message(title: str, facts: Sequence[tuple[str, str]], note: str | None) -> dict[str, Any]:
    fields = [{"type": "plain_text", "text": f"{name}\n{text}"[:2000], "emoji": False} for name, text in facts[:10]]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title[:150], "emoji": False}},
        {"type": "section", "fields": fields},
    ]
    if note is not None:
        blocks.append({"type": "context", "elements": [{"type": "plain_text", "text": note, "emoji": False}]})
    # The text is what notifications show; there Slack does read mark-up.
    text = title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": text, "blocks": blocks, "unfurl_links": False, "unfurl_media": False}
