"""A signed webhook, as Standard Webhooks 1.0 says, so that receivers verify it with a library they have."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from typing import Any

from creto.errors import InvalidInputError
from creto.oversight._request import Request
from creto.oversight.channels._alert import Alert
from creto.oversight.channels._http import post
from creto.oversight.channels._message import Message

__all__ = ["Webhook"]


class Webhook:
    """Posts requests as `oversight.request.pending` events.

    Args:
        name: For people, and for the record.
        url: Where to.
        secret: `whsec_` and base64 of 24 to 64 bytes, known to the receiver too.
        policies: Only requests under these; all where there are none.
        alerts: Whether quotas that run low are told too, as `quota.alert` events.

    Raises:
        InvalidInputError: The secret has another form.

    Example:
        >>> hook = Webhook("ops", "https://example.org/hook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        >>> hook.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
        'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """

    def __init__(self, name: str, url: str, secret: str, policies: Sequence[str] = (), *, alerts: bool = False) -> None:
        self.name = f"webhook:{name}"
        self._url = url
        self._policies = frozenset(policies)
        self.alerts = alerts
        try:
            self._key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error as error:
            raise InvalidInputError(f"the secret of the webhook `{name}` is not `whsec_` and base64") from error
        if not 24 <= len(self._key) <= 64:
            raise InvalidInputError(
                f"the secret of the webhook `{name}` has {len(self._key)} bytes; Standard Webhooks wants 24 to 64"
            )

    def wants(self, request: Request) -> bool:
        """True where this request is to be announced here."""
        return not self._policies or bool(self._policies & set(request.policies))

    def signature(self, id: str, timestamp: int, body: bytes) -> str:
        """The value of `webhook-signature`: HMAC-SHA256 over id, time in seconds, and body."""
        signed = b".".join((id.encode(), str(timestamp).encode(), body))
        return "v1," + base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()

    def send(self, message: Message) -> str:
        """Posts it once."""
        request = message.request
        data = {**request.as_dict(), "link": message.link}
        return self._post("oversight.request.pending", request.id, request.created_us, data)

    def send_alert(self, alert: Alert) -> str:
        """Posts once that a quota runs low."""
        return self._post("quota.alert", alert.id, alert.at, alert.as_dict())

    def _post(self, kind: str, id: str, at: int, data: dict[str, Any]) -> str:
        timestamp = dt.datetime.fromtimestamp(at / 1e6, dt.UTC).isoformat()
        body = json.dumps({"type": kind, "timestamp": timestamp, "data": data}, ensure_ascii=False).encode()
        # The id stays the same over retries: the receiver drops what it has seen.
        name, now = f"msg_{id}", int(time.time())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": str(now),
            "webhook-signature": self.signature(name, now, body),
        }
        return post(self._url, body, headers)
