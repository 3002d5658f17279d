"""Fixtures that every test may use; the servers start only where a test asks for them."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
pytest_plugins = ["servers"]
# Whatever is started in the background of a shell script ignores it, and so would every program that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes is the machine's affair.
settings.register_profile("creto", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("creto")
