"""Between machines, kill -9 of either side at every step of a delivery: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from sqlalchemy import select

from creto.messaging import Mailbox
from creto.nhi import Identities
from creto.store import Store, tables

# A machine in a process of its own, which dies where it is told to: before a function is called, or after it returned.
MACHINE = """
import os, sys, anyio
from creto.messaging import Mailbox, _nats, _nats_blobs, _outgoing, _pieces, _receipt, _rows
from creto.nhi import Identities
from creto.store import Store

state, name, url, when, where = sys.argv[1:]
homes = {
    "keep": _outgoing, "due": _outgoing, "answered": _outgoing, "put": _rows, "sign": _receipt,
    "add": _pieces, "assemble": _pieces,
}

def dying(function):
    def call(*arguments, **options):
        if when == "before":
            os.kill(os.getpid(), 9)
        result = function(*arguments, **options)
        if result or where != "due":  # what is due is asked for ever, and mostly nothing is
            os.kill(os.getpid(), 9)
        return result
    return call

if where in homes:
    setattr(homes[where], where, dying(getattr(homes[where], where)))

async def main():
    with Store(state) as store:
        identities = Identities(store, trust_domain=f"{name}.test")
        mailbox = Mailbox(store, identities, remote=True)
        agent = identities.agent(name)
        if where == "carried":
            sending = _nats._Carrier._publish
            async def publish(self, kind, items):
                items = list(items)
                await sending(self, kind, items)
                if items:
                    os.kill(os.getpid(), 9)
            _nats._Carrier._publish = publish
        if where == "uploaded":
            putting, put = _nats_blobs.Blobs._put, []
            async def putting_some(self, subject, piece):
                await putting(self, subject, piece)
                put.append(subject)
                if len(put) == 20:
                    os.kill(os.getpid(), 9)
            _nats_blobs.Blobs._put = putting_some
        if where == "published":
            original = _nats._Carrier.take_in
            async def take_in(self, messages):
                taken = await original(self, messages)
                if None in taken:  # the server may have kept what another test sent to an agent of this name
                    os.kill(os.getpid(), 9)
                return taken
            _nats._Carrier.take_in = take_in
        async with mailbox.carry(url):
            print("up", flush=True)
            if name == "here":
                first = sys.stdin.readline().strip()
                if first == "send":
                    await mailbox.send(agent, "spiffe://there.test/agent/there", b"once")
                if first == "attach":
                    file = {"data.bin": bytes(3_000_000)}
                    await mailbox.send(agent, "spiffe://there.test/agent/there", b"once", attach=file)
            await anyio.sleep_forever()

anyio.run(main)
"""


class Machine:
    """A machine's state, and its process while one runs."""

    def __init__(self, state: Path, name: str) -> None:
        self.state, self.name = state, name
        with Store(state) as store:
            identities = Identities(store, trust_domain=f"{name}.test")
            identities.agent(name)
            self.bundle = identities.export()
            self.fingerprint = identities.domain().verifying_key.fingerprint

    def knows(self, other: Machine) -> None:
        with Store(self.state) as store:
            identities = Identities(store, trust_domain=f"{self.name}.test")
            identities.import_blocking(other.bundle, fingerprint=other.fingerprint)

    def start(self, url: str, task: str, when: str = "-", where: str = "-") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", MACHINE, str(self.state), self.name, url, when, where]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.stdin.write(task + "\n")
        process.stdin.flush()
        return process


def outgoing(machine: Machine) -> list[str]:
    with Store(machine.state) as store, store.read() as tx:
        return [row.state for row in tx.all(select(tables.outgoing))]


async def read_all(machine: Machine) -> list[bytes]:
    """What the recipient's handler sees, in a process that lives; it waits a little for what should not come."""
    got = []
    with Store(machine.state) as store:
        identities = Identities(store, trust_domain=f"{machine.name}.test")
        mailbox = Mailbox(store, identities, remote=True)
        async with mailbox.inbox(identities.agent(machine.name)) as inbox:
            with anyio.move_on_after(60) as first:
                while True:
                    message = await inbox.__anext__()
                    await message.ack()
                    got.append(message.body)
                    assert [await file.read() for file in message.attachments.values()] in ([], [bytes(3_000_000)])
                    first.deadline = anyio.current_time() + 1.5
    return got


@pytest.mark.parametrize(
    ("side", "when", "where"),
    [
        pytest.param("here", "after", "keep", id="the sender, before its transaction commits"),
        pytest.param("here", "after", "due", id="the sender, with the message in its store"),
        pytest.param("here", "-", "carried", id="the sender, once the server has it"),
        pytest.param("here", "before", "answered", id="the sender, with the receipt in hand"),
        pytest.param("here", "after", "answered", id="the sender, before it commits the receipt"),
        pytest.param("there", "before", "put", id="the recipient, with the message in hand"),
        pytest.param("there", "after", "put", id="the recipient, before it commits the message"),
        pytest.param("there", "before", "sign", id="the recipient, before it signs the receipt"),
        pytest.param("there", "-", "published", id="the recipient, before it answers the server"),
        pytest.param("here", "-", "uploaded", id="the sender, with half an attachment on the server"),
        pytest.param("there", "after", "add", id="the recipient, before it commits an attachment's first pieces"),
        pytest.param("there", "before", "assemble", id="the recipient, with all the pieces in its store"),
    ],
)
def test_a_side_killed_at_any_step_loses_nothing_and_delivers_once(
    tmp_path: Path, nats_url: str, side: str, when: str, where: str
) -> None:
    here, there = Machine(tmp_path / "here", "here"), Machine(tmp_path / "there", "there")
    here.knows(there)
    there.knows(here)
    dies = (when, where)
    task = "attach" if where in {"uploaded", "add", "assemble"} else "send"
    processes = [there.start(nats_url, "-", *(dies if side == "there" else ()))]
    processes.append(here.start(nats_url, task, *(dies if side == "here" else ())))
    victim = processes[side == "here"]
    try:
        assert victim.wait(timeout=120) == -signal.SIGKILL
        # Nobody was told that it was sent where the transaction did not commit: then, and only then, it is sent anew.
        lost = not outgoing(here)
        assert lost == (where == "keep")
        again = here.start(nats_url, "send" if lost else "-") if side == "here" else there.start(nats_url, "-")
        processes.append(again)
        assert anyio.run(read_all, there) == [b"once"]
        deadline = time.monotonic() + 60
        while outgoing(here) != ["received"] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert outgoing(here) == ["received"]
    finally:
        for process in processes:
            process.kill()
            with suppress(BrokenPipeError):  # what was to be said to a process that is gone
                process.communicate()
