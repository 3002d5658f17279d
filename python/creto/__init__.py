"""creto: the enablement layer that every act of an AI agent goes through.

The public names, loaded when first used, and nothing else.
"""

TYPE_CHECKING = False  # typing's own import would cost half of ours
if TYPE_CHECKING:
    from creto.errors import CretoError as CretoError
    from creto.layer import EnablementLayer as EnablementLayer
    from creto.layer import open as open
    from creto.layer import open_blocking as open_blocking

_HOMES = {
    "CretoError": "creto.errors",
    "EnablementLayer": "creto.layer",
    "open": "creto.layer",
    "open_blocking": "creto.layer",
}

__all__ = ["CretoError", "EnablementLayer", "open", "open_blocking"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module `creto` has no attribute `{name}`")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
