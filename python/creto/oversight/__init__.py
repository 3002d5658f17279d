"""Oversight: an act that policy will not allow by itself waits until a human has agreed to exactly that act.

The answer is a signed statement about the act's digest, good once. Nothing here decides by itself, and no answer is ever assumed.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from creto.oversight._approvers import Approver as Approver
    from creto.oversight._approvers import Approvers as Approvers
    from creto.oversight._desk import Clearance as Clearance
    from creto.oversight._desk import Desk as Desk
    from creto.oversight._request import Request as Request

_HOMES = {
    "Approver": "creto.oversight._approvers",
    "Approvers": "creto.oversight._approvers",
    "Clearance": "creto.oversight._desk",
    "Desk": "creto.oversight._desk",
    "Request": "creto.oversight._request",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module `creto.oversight` has no attribute `{name}`")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
