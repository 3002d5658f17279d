"""What names and addresses look like, wherever they are given: in a file, at the command line, in a call."""

from __future__ import annotations

__all__ = ["APPROVER", "EMAIL", "SHORTEST_TOKEN"]

APPROVER = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""The name of an approver."""
EMAIL = r"[^@\s]+@[^@\s]+"
"""An address; whether it exists is for its server to say."""
SHORTEST_TOKEN = 16
"""Characters of a token that cannot be guessed."""
