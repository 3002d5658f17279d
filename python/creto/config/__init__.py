"""The configuration: environment over files over defaults, each value with its origin; nothing untrusted counts.

It merges and validates; what a setting does is the business of the part that has it.
"""

from typing import TYPE_CHECKING

from creto._lazy import lazily

if TYPE_CHECKING:
    from creto.config._live import Change as Change
    from creto.config._live import Live as Live
    from creto.config._live import Reload as Reload
    from creto.config._load import load as load
    from creto.config._sections import Price as Price
    from creto.config._sections import Quota as Quota
    from creto.config._settings import Settings as Settings
    from creto.config._trust import Trust as Trust

_HOMES = {
    "Change": "creto.config._live",
    "Live": "creto.config._live",
    "Price": "creto.config._sections",
    "Quota": "creto.config._sections",
    "Reload": "creto.config._live",
    "Settings": "creto.config._settings",
    "Trust": "creto.config._trust",
    "load": "creto.config._load",
}

__all__ = ["Change", "Live", "Price", "Quota", "Reload", "Settings", "Trust", "load"]

__getattr__, __dir__ = lazily(__name__, _HOMES)
