"""The inbox, on which approvers answer from a browser or a program; beside it, figures for Prometheus."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from creto.server._app import inbox_app as inbox_app
    from creto.server._metrics import Metrics as Metrics
    from creto.server._serve import serve_inbox as serve_inbox

_HOMES = {"Metrics": "creto.server._metrics", "inbox_app": "creto.server._app", "serve_inbox": "creto.server._serve"}

__all__ = ["Metrics", "inbox_app", "serve_inbox"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module `creto.server` has no attribute `{name}`")
    from importlib import import_module

    from creto.errors import InvalidInputError

    try:
        value = getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in {"jinja2", "prometheus_client", "starlette", "uvicorn"}:
            raise InvalidInputError("the inbox needs an extra: run `pip install 'creto[server]'`") from error
        raise
    globals()[name] = value
    return value
