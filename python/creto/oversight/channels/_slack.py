"""A Slack incoming webhook: one message in Block Kit, with a button that opens the inbox."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from creto.oversight._request import Request
from creto.oversight.channels._http import post
from creto.oversight.channels._message import Message

__all__ = ["Slack"]


class Slack:
    """Posts requests to a Slack channel.

    Args:
        name: For people, and for the record.
        url: The incoming webhook's URL, which is a secret.
        policies: Only requests under these; all where there are none.
    """

    def __init__(self, name: str, url: str, policies: Sequence[str] = ()) -> None:
        self.name = f"slack:{name}"
        self._url = url
        self._policies = frozenset(policies)

    def wants(self, request: Request) -> bool:
        """True where this request is to be announced here."""
        return not self._policies or bool(self._policies & set(request.policies))

    def send(self, message: Message) -> str:
        """Posts it once."""
        return post(
            self._url, json.dumps(self.blocks(message)).encode(), {"Content-Type": "application/json; charset=utf-8"}
        )

    @staticmethod
    def blocks(message: Message) -> dict[str, Any]:
        """The message: facts are plain text, in which Slack reads no mark-up, links or mentions."""
        facts = [
            {"type": "plain_text", "text": f"{name}\n{text}"[:2000], "emoji": False}
            for name, text in message.facts[:10]
        ]
        blocks: list[dict[str, Any]] = [
            {"type": "header", "text": {"type": "plain_text", "text": message.title[:150], "emoji": False}},
            {"type": "section", "fields": facts},
            {
                "type": "context",
                "elements": [
                    {"type": "plain_text", "text": f"No answer by {message.until} counts as no.", "emoji": False}
                ],
            },
        ]
        if message.link is not None:
            label = {"type": "plain_text", "text": "Open in the inbox", "emoji": False}
            blocks.append(
                {
                    "type": "actions",
                    "elements": [
                        {"type": "button", "text": label, "url": message.link, "action_id": "open", "style": "primary"}
                    ],
                }
            )
        # The text is what notifications show; there Slack does read mark-up.
        text = message.title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return {"text": text, "blocks": blocks, "unfurl_links": False, "unfurl_media": False}
