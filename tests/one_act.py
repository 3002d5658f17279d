"""Does one whole act, of an agent made for it, and sends a message; says what is promised the moment it is.

usage: one_act.py STATE    BEGUN, then RAN while the operation runs, ACK once `perform` has returned, SENT with the
message's id, and at last DONE; REFUSED or FAILED with why not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

import creto
from creto.errors import CretoError

RESOURCE = "https://example.org/one-act"


def tell(line: str) -> None:
    os.write(1, f"LIFE {line}\n".encode())


async def main(state: Path) -> None:
    async with creto.open(state) as layer:
        tell("BEGUN")
        agent, reviewer = layer.agent("researcher"), layer.agent("reviewer")
        try:
            await layer.perform(agent, "tool:call", RESOURCE, lambda: tell("RAN"), usage={"requests": 1})
            tell("ACK")
            sent = await layer.send(agent, to=reviewer.id, body=b"x" * 3_000, receipt=False)
            tell(f"SENT {sent.id}")
        except (CretoError, OSError) as error:
            tell(f"REFUSED {type(error).__name__}: {error}".replace("\n", " "))
    tell("DONE")


if __name__ == "__main__":
    try:
        anyio.run(main, Path(sys.argv[1]))
    except (CretoError, OSError) as error:
        tell(f"FAILED {type(error).__name__}: {error}".replace("\n", " "))
