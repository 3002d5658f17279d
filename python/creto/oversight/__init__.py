"""Oversight: an act that policy will not allow by itself waits until a human has agreed to exactly that act.

The answer is a signed statement about the act's digest, good once. Nothing here decides by itself; no answer is ever
assumed.
"""

from typing import TYPE_CHECKING

from creto._lazy import lazily

if TYPE_CHECKING:
    from creto.oversight._approvers import Approver as Approver
    from creto.oversight._approvers import Approvers as Approvers
    from creto.oversight._desk import Clearance as Clearance
    from creto.oversight._desk import Desk as Desk
    from creto.oversight._open import configure_desk as configure_desk
    from creto.oversight._open import open_approvers as open_approvers
    from creto.oversight._open import open_desk as open_desk
    from creto.oversight._request import Request as Request
    from creto.oversight._terminal import Terminal as Terminal

_HOMES = {
    "Approver": "creto.oversight._approvers",
    "Approvers": "creto.oversight._approvers",
    "Clearance": "creto.oversight._desk",
    "Desk": "creto.oversight._desk",
    "Request": "creto.oversight._request",
    "Terminal": "creto.oversight._terminal",
    "configure_desk": "creto.oversight._open",
    "open_approvers": "creto.oversight._open",
    "open_desk": "creto.oversight._open",
}

__all__ = [
    "Approver",
    "Approvers",
    "Clearance",
    "Desk",
    "Request",
    "Terminal",
    "configure_desk",
    "open_approvers",
    "open_desk",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
