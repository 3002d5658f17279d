"""The main job: an auditing agent under the whole layer, on this project's own files; all figures are measured here.

usage: main.py [--backend gvisor|process] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

from approver import ReleaseDesk
from story import tell

from servers import Site

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def inputs(folder: Path) -> None:
    """What the agent audits: this project's lock files, cargo's metadata, the licences of the installed packages."""
    (folder / "python-metadata").mkdir(parents=True)
    for name in ("Cargo.lock", "requirements-dev.txt"):
        shutil.copy(ROOT / name, folder)
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    licences = [{key: p[key] for key in ("name", "version", "license")} for p in json.loads(metadata)["packages"]]
    (folder / "cargo-metadata.json").write_text(json.dumps({"packages": licences}))
    for found in distributions():
        text = found.read_text("METADATA")
        if text:
            name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
            (folder / "python-metadata" / f"{name}.txt").write_text(text.split("\n\n", 1)[0])


class Creto:
    """The command, on one state folder and one configuration."""

    def __init__(self, state: Path) -> None:
        self.environment = {**os.environ, "CRETO_STATE": str(state), "PYTHONUNBUFFERED": "1"}
        self.command = [sys.executable, "-m", "creto", "--config", str(HERE / "creto.toml")]

    def json(self, *arguments: str) -> dict:
        """What a command prints under `--json`."""
        ran = subprocess.run(
            [*self.command, *arguments, "--json"], env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return json.loads(ran.stdout)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command that goes on."""
        return subprocess.Popen([*self.command, *arguments], env=self.environment, stdout=subprocess.PIPE, text=True)

    def run(self, *arguments: str, cwd: Path) -> int:
        """Runs a command on this terminal."""
        command = [*self.command, *arguments]
        return subprocess.run(command, check=False, env=self.environment, cwd=cwd, stdin=subprocess.DEVNULL).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backend", choices=["gvisor", "process"], default="gvisor")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "auditor")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    work, state = args.out / "work", args.out / "state"
    inputs(work)
    state.mkdir(mode=0o700)
    creto = Creto(state)

    if args.backend == "gvisor":
        subprocess.run([*creto.command, "sandbox", "install"], env=creto.environment, check=True)
    open_site, collector = Site(), Site()
    desk_token = creto.json("approver", "token", "release-desk")["token"]
    inbox = creto.start("inbox", "--json")
    assert inbox.stdout is not None
    address = json.loads(inbox.stdout.readline())["url"]
    desk = ReleaseDesk(address, desk_token)
    started = time.time()
    try:
        print("$ creto run --agent auditor -- python agent.py", flush=True)
        shutil.copy(HERE / "agent.py", work)
        status = creto.run(
            "run",
            *("--agent", "auditor", "--backend", args.backend, "--wait", "60"),
            *(f"--host=licences.example={open_site.address}", f"--host=publish.example={open_site.address}"),
            f"--host=telemetry.example={collector.address}",
            *("--", "python", "agent.py"),
            cwd=work,
        )
    finally:
        desk.close()
        inbox.terminate()
        inbox.wait()
        open_site.close()
        collector.close()
    if status:
        print(f"creto run ended with {status}", file=sys.stderr)
        return status
    return asyncio.run(
        tell(args.out, started, desk.transcript, {"licences and publish": open_site, "telemetry": collector})
    )


if __name__ == "__main__":
    sys.exit(main())
