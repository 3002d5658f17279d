"""No test, and no example of a docstring, depends on who runs it, by settings or state, or on the time of day."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

_LAST_SECONDS = 30


@pytest.fixture(autouse=True)
def _one_hour() -> None:
    # With an hour perhaps a day, a month or a year ends, and what a test counts by those would begin anew in its midst.
    # What does happen then has tests with clocks of their own.
    left = 3600 - time.time() % 3600
    if left < _LAST_SECONDS:
        time.sleep(left)


@pytest.fixture(autouse=True)
def _own_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("CRETO_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CRETO_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
