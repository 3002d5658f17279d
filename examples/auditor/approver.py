"""A human's stand-in for the example: answers through the inbox's HTTP API, by a rule that anyone can read here."""

from __future__ import annotations

import json
import threading
import urllib.request


class ReleaseDesk:
    """Approves a publication to `publish.example` and a report in the working folder; denies the rest.

    Args:
        inbox: The inbox's address.
        token: The approver's token.
    """

    def __init__(self, inbox: str, token: str) -> None:
        self.inbox = inbox.rstrip("/")
        self.token = token
        self.transcript: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _call(self, path: str, body: dict | None = None) -> dict:
        request = urllib.request.Request(
            self.inbox + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def _work(self) -> None:
        answered: set[str] = set()
        while not self._stop.wait(0.2):
            for request in self._call("/api/requests")["requests"]:
                if request["id"] in answered:
                    continue
                answered.add(request["id"])
                what, resource = request["action"], request["resource"]
                agreed = (what == "net:connect" and resource.startswith("publish.example:")) or (
                    what == "fs:write" and resource == "report.md"
                )
                if agreed:
                    body = {"digests": request["digests"], "reason": "part of every audit"}
                    self._call(f"/api/requests/{request['id']}/approve", body)
                else:
                    self._call(f"/api/requests/{request['id']}/deny", {"reason": "not part of an audit"})
                self.transcript.append(
                    f"{request['id'][:8]}  {what} {resource}  (policy {', '.join(request['policies'])})  "
                    f"POST {'approve' if agreed else 'deny'}"
                )

    def close(self) -> None:
        """Stops answering."""
        self._stop.set()
        self._thread.join()
