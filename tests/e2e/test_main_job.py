"""The main job, whole: an agent that knows nothing of creto is decided on, asked about, counted and isolated."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(400)
@pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root for now: network namespaces and mounts")
def test_the_auditing_agent_runs_under_the_whole_layer(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "auditor" / "main.py"), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=390,
        stdin=subprocess.DEVNULL,
    )
    told = ran.stdout + ran.stderr
    assert ran.returncode == 0, told
    assert re.search(r"read \d{3} dependencies", told)
    assert "approved licences, from licences.example: 24" in told
    assert "usage statistics, to telemetry.example: refused" in told
    assert re.search(r"a secret outside the folder, .*: No such file", told)
    assert re.search(r"net:connect publish\.example:80 +\(policy publish\) +POST approve", told)
    assert re.search(r"advisories: refused: .* after \d+ of \d+ look-ups", told)
    assert "signatures valid" in told
    assert "right" in told
    assert "does not hash to its leaf" in told
    assert re.search(r"│ ?telemetry +│ 0 +│", told), "the denied server saw a request"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<svg" in page
    assert "over quota" in page
    assert (tmp_path / "out" / "work" / "report.md").read_text().startswith("# Licences")
