"""Who sits at this machine, as records name them: the user that the process runs as, whatever its environment says."""

from __future__ import annotations

import os
import pwd

__all__ = ["user", "user_id"]


def user() -> str:
    """The name of the user that this process runs as; the number where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def user_id(trust_domain: str) -> str:
    """The user as the one who did something: what an agent's id is to an agent.

    Args:
        trust_domain: That of the state folder.

    Example:
        >>> user_id("creto.local").startswith("spiffe://creto.local/user/")
        True
    """
    return f"spiffe://{trust_domain}/user/{user()}"
