"""Puts a desk together from a store and the configuration, as the layer, the commands and the inbox all need it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from creto.errors import InvalidInputError
from creto.oversight._approvers import Approvers
from creto.oversight._desk import Desk

if TYPE_CHECKING:
    from creto import _core
    from creto.config import Settings
    from creto.reach import Reach
    from creto.store import Store

__all__ = ["configure_desk", "open_approvers", "open_desk"]


def open_approvers(store: Store, settings: Settings, sealer: _core.Sealer | None = None) -> Approvers:
    """The approvers of a store; those that the configuration names are made where they are missing.

    Args:
        store: Where they are kept.
        settings: The configuration; its `[[approvers]]` and trust domain count.
        sealer: Seals keys at rest; the state folder's own where none is given.

    Raises:
        InvalidInputError: The store has no state folder, and no sealer was given.

    Example:
        >>> import tempfile
        >>> from creto.config import load
        >>> from creto.store import Store
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     people = open_approvers(store, load(state=store.folder, environment={}, system=False))
        ...     people.add("ann")[0].id
        'spiffe://creto.local/approver/ann'
    """
    if sealer is None:
        if store.folder is None:
            raise InvalidInputError(
                "approvers' keys are sealed in a state folder, and this store has none; give `sealer=`"
            )
        sealer = settings.sealer(store.folder)
    people = Approvers(store, sealer, trust_domain=settings.common.trust_domain, suite=settings.common.suite)
    people.configure(settings.approvers)
    return people


def configure_desk(desk: Desk, settings: Settings) -> None:
    """Takes up a changed configuration: approvers, channels, and how long requests wait. Requests that wait stay.

    Args:
        desk: What is configured.
        settings: The configuration as it stands now.

    Raises:
        InvalidInputError: A channel or approver cannot be; nothing has changed then.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from creto.config import load
        >>> from creto.reach import Reach
        >>> from creto.store import Store
        >>> folder = Path(tempfile.mkdtemp())
        >>> changed = folder / "changed.toml"
        >>> _ = changed.write_text("oversight.default_timeout_seconds = 60")
        >>> with Store(folder) as store, Reach(store) as reach:
        ...     desk = open_desk(store, load(state=folder, environment={}, system=False), reach)
        ...     configure_desk(desk, load([changed], state=folder, environment={}, system=False))
        ...     desk.timeout
        60.0
    """
    from creto.oversight.channels import Announcements

    announcer = Announcements.configured(desk.store, settings)
    desk.approvers.configure(settings.approvers)
    before, desk.announcer = desk.announcer, announcer
    desk.timeout = settings.oversight.default_timeout_seconds
    if before is not None:
        before.close()


def open_desk(store: Store, settings: Settings, reach: Reach, sealer: _core.Sealer | None = None) -> Desk:
    """A desk with memory and channels, as the configuration says.

    Args:
        store: Where requests and grants are decided.
        settings: The configuration.
        reach: Wakes waiters in all processes.
        sealer: Seals approvers' keys; the state folder's own where none is given.

    Example:
        >>> import tempfile
        >>> from creto.config import load
        >>> from creto.reach import Reach
        >>> from creto.store import Store
        >>> with Store(tempfile.mkdtemp()) as store, Reach(store) as reach:
        ...     desk = open_desk(store, load(state=store.folder, environment={}, system=False), reach)
        ...     desk.pending(), desk.timeout
        ([], 3600.0)
    """
    from creto.memory import Precedents
    from creto.oversight.channels import Announcements

    return Desk(
        store,
        reach,
        open_approvers(store, settings, sealer),
        timeout=settings.oversight.default_timeout_seconds,
        precedents=Precedents(store),
        announcer=Announcements.configured(store, settings),
    )
