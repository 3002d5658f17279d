"""The second agent: takes a sealed report from its inbox and checks it against the lock files, in its own process."""

import asyncio
import re
import sys
import tomllib
from pathlib import Path

import creto


async def main(state: str, folder: Path) -> int:
    async with creto.open(state) as layer:
        reviewer = layer.agent("reviewer")
        async for message in layer.inbox(reviewer):
            report = message.body.decode()
            claimed = int(re.search(r"^(\d+) dependencies", report, re.M)[1])
            summed = sum(int(n) for n in re.findall(r"^\| .+ \| (\d+) \|$", report, re.M))
            crates = sum("source" in p for p in tomllib.loads((folder / "Cargo.lock").read_text())["package"])
            pinned = len(
                re.findall(r"^[A-Za-z0-9._-]+(?:\[[^]]*\])?==", (folder / "requirements-dev.txt").read_text(), re.M)
            )
            right = claimed == summed == crates + pinned
            await message.ack()
            print(
                f"reviewer: a sealed message of {len(message.body)} bytes from {message.sender}, signatures valid; "
                f"it claims {claimed} dependencies, the lock files hold {crates + pinned}: "
                f"{'right' if right else 'WRONG'}"
            )
            return 0 if right else 1
    return 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], Path(sys.argv[2]))))
