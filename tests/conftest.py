"""Fixtures that every test may use; the servers start only where a test asks for them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest_plugins = ["servers"]
# Whatever is started in the background of a shell script ignores it, and so would every program that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the settings, or writes the state, of whoever runs it."""
    for name in os.environ:
        if name.startswith("CRETO_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CRETO_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
