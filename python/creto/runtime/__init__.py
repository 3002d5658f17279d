"""Sandboxes for agents: claimed from a warm pool, with a copy-on-write working folder and no way out but one that asks.

This package knows nothing of policy: it takes hooks that decide, and tells them what it saw.
"""

from creto.runtime._attestation import attestation, statement
from creto.runtime._box import Box, Hooks, Program, Result
from creto.runtime._changes import Change
from creto.runtime._pool import Pool
from creto.runtime._runsc import RUNSC_VERSION, find_runsc, install_runsc

__all__ = [
    "RUNSC_VERSION",
    "Box",
    "Change",
    "Hooks",
    "Pool",
    "Program",
    "Result",
    "attestation",
    "find_runsc",
    "install_runsc",
    "statement",
]
