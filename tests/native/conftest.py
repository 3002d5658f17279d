"""Fixtures of the native tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from house import House, build


@pytest.fixture
def house(state: Path) -> Iterator[House]:
    opened = build(state)
    yield opened
    opened.ledger.close_blocking()
