"""Sandboxes for agents: claimed from a warm pool, with a copy-on-write working folder and no way out but one that asks.

This package knows nothing of policy: it takes hooks that decide, and tells them what it saw.
"""

from creto.runtime._attestation import statement
from creto.runtime._box import Box, Connection, Hooks, Program, Result
from creto.runtime._changes import Change
from creto.runtime._doctor import examine
from creto.runtime._pool import Pool
from creto.runtime._registry import clean, running
from creto.runtime._runsc import RUNSC_VERSION, find_runsc, install_runsc
from creto.runtime._secrets import Secret, Secrets, check_secret_name

__all__ = [
    "RUNSC_VERSION",
    "Box",
    "Change",
    "Connection",
    "Hooks",
    "Pool",
    "Program",
    "Result",
    "Secret",
    "Secrets",
    "check_secret_name",
    "clean",
    "examine",
    "find_runsc",
    "install_runsc",
    "running",
    "statement",
]
