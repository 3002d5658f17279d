"""What `creto mcp` promises whoever starts it: it ends when its server does, or says no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CRETO = [sys.executable, "-m", "creto"]


def test_it_ends_with_its_server_though_the_client_has_more_to_say(state: Path) -> None:
    server = [sys.executable, "-c", "import time; time.sleep(1); raise SystemExit(3)"]
    with subprocess.Popen([*CRETO, "--state", str(state), "mcp", "--", *server], stdin=subprocess.PIPE) as running:
        try:
            assert running.wait(120) == 3
        finally:
            running.kill()


def test_a_server_that_says_no_more_and_will_not_end_is_ended(state: Path) -> None:
    stubborn = "import os, signal, time; os.close(1); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    command = [*CRETO, "--state", str(state), "mcp", "--", sys.executable, "-c", stubborn]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as running:
        try:
            assert running.wait(120) != 0
        finally:
            running.kill()
