"""`creto message`: send and read sealed messages between agents."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli._group import Group
from creto.errors import CretoError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from creto.messaging import Mailbox, Message
    from creto.nhi import Agent, Identities

__all__ = ["command"]

_MESSAGE = re.compile(r"[0-9a-f]{32}")


@asynccontextmanager
async def _mailbox(frame: Frame) -> AsyncIterator[tuple[Identities, Mailbox]]:
    from creto.messaging import Mailbox
    from creto.nhi import Identities
    from creto.reach import Reach

    common, messaging = frame.settings.common, frame.settings.messaging
    with frame.store() as store, Reach(store) as reach:
        identities = Identities(
            store, trust_domain=common.trust_domain, suite=common.suite, sealer=frame.sealer(), reach=reach
        )
        yield (
            identities,
            Mailbox(
                store,
                identities,
                reach,
                max_message_size=messaging.max_message_size_bytes,
                delivery_timeout=float(messaging.delivery_timeout_seconds),
                remote=messaging.nats_url is not None,
            ),
        )


@click.group(cls=Group)
def command() -> None:
    """Messages between agents, sealed for their recipients and signed by their sender.

    Whoever runs these commands holds the agents' keys, so policy is not asked; `message:send` is asked of agents in the
    library and in sandboxes.
    """


@command.command()
@click.argument("sender")
@click.argument("to", nargs=-1, required=True)
@click.option("--file", type=click.File("rb"), help="The content; else it is read from standard input.")
@click.option("--text", help="The content, as text.")
@click.option("--content-type", help="Its media type.")
@click.option(
    "--attach",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file to send along, sealed apart; may be given again.",
)
@click.option("--reply-to", help="The id of the message that it answers.")
@click.option(
    "--priority",
    type=click.Choice(["non-urgent", "normal", "urgent"]),
    default="normal",
    show_default=True,
    help="How soon it wants to be read.",
)
@click.option(
    "--wait", is_flag=True, help="Wait until every recipient has acknowledged it (on another machine: received it)."
)
@json_option
@pass_frame
def send(
    frame: Frame,
    sender: str,
    to: tuple[str, ...],
    file: Any,
    text: str | None,
    content_type: str | None,
    attach: tuple[Path, ...],
    reply_to: str | None,
    priority: str,
    wait: bool,
) -> None:
    """Seal a message from one agent and put it into the mailboxes of others.

    \b
    Example:
      creto message send researcher reviewer --text "the report is done" --attach report.pdf
    """
    names = [file.name for file in attach]
    if len(set(names)) < len(names):
        raise click.UsageError("two files of one name cannot be attached to one message")
    body: str | bytes = text if text is not None else (file.read() if file else sys.stdin.buffer.read())

    async def run() -> None:
        async with _mailbox(frame) as (identities, mailbox):
            sent = await mailbox.send(
                _known(identities, sender),
                list(to),
                body,
                content_type=content_type,
                in_reply_to=reply_to,
                priority=priority,
                attach={file.name: file.read_bytes() for file in attach} or None,
                receipt=wait,
            )
            data = {"id": sent.id, "to": list(sent.to), "bytes": sent.size, "state": await sent.state()}
            frame.show(data, f"sent {sent.id} to {', '.join(sent.to)} ({sent.size} bytes sealed)")

    frame.run(run)


@command.command()
@click.argument("agent")
@click.option("--follow", is_flag=True, help="Go on until stopped.")
@click.option("--ack/--peek", default=True, help="Acknowledge what is shown, or leave it for another time.")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder for attachments: each message's in a folder of its own, named by its id.",
)
@json_option
@pass_frame
def inbox(frame: Frame, agent: str, follow: bool, ack: bool, save: Path | None) -> None:
    """Read what has come in for an agent.

    \b
    Example:
      creto message inbox reviewer
      creto message inbox reviewer --follow --json
      creto message inbox reviewer --save received/
    """

    async def run() -> None:
        async with _mailbox(frame) as (identities, mailbox), mailbox.inbox(_known(identities, agent)) as opened:
            held: list[Message] = []
            came = False
            unsaved: CretoError | OSError | None = None
            try:
                while True:
                    message = await (opened.__anext__() if follow else opened.ready())
                    if message is None:
                        if not came and not frame.json:
                            click.echo(f"nothing has come in for {agent}", err=True)
                        break
                    came = True
                    held.append(message)
                    frame.line(_data(message), _text(message))
                    if save is not None:
                        try:
                            await _save(message, save)
                        except (CretoError, OSError) as error:
                            # It stays, and keeps nobody from those that came after it.
                            unsaved = unsaved or error
                            if follow:
                                frame.warn(str(error))
                            continue
                    if ack:
                        await message.ack()
                        held.remove(message)
            finally:
                for message in held:
                    await message.release()
            if unsaved is not None:
                raise unsaved

    frame.run(run)


@command.command()
@click.argument("what", metavar="ID|FILE")
@json_option
@pass_frame
def show(frame: Frame, what: str) -> None:
    """Show what became of the message of this ID, or what the envelope in FILE says of itself.

    Of a message that was sent from here it is its state at each recipient, with the reason where it was turned away.
    An envelope is not opened, and nothing of it is verified.

    \b
    Example:
      creto message show 6c0f3d52ab9e41f08f7d1e2b3a4c5d6e
      creto message show envelope.der
    """
    file = Path(what)
    if _MESSAGE.fullmatch(what) and not file.exists():
        _show_fate(frame, what)
    elif file.is_file():
        _show_header(frame, file)
    else:
        raise NotFoundError(f"`{what}` is neither a message's id, 32 hexadecimal digits, nor a file")


def _show_fate(frame: Frame, id: str) -> None:
    from creto.messaging._fate import known_of

    with frame.store() as store:
        rows = known_of(store, id)
    if not rows:
        raise NotFoundError(
            f"no message `{id}` was sent from here, or it has expired: `creto audit query --action message:*` has its "
            "records"
        )
    frame.table(["sender", "recipient", "state", "reason"], rows)


def _show_header(frame: Frame, file: Path) -> None:
    from creto import _core

    try:
        header = _core.envelope_header(file.read_bytes(), frame.settings.common.suite)
    except InvalidInputError as error:
        raise InvalidInputError(f"`{file}` is no sealed message, or not a whole one") from error
    frame.show(header)


def _known(identities: Identities, name: str) -> Agent:
    """The agent of this name; one that was misspelt is not made."""
    identities.find(name)
    return identities.agent(name)


async def _save(message: Message, folder: Path) -> None:
    for name, attached in message.attachments.items():
        # The sender chose the name: it names a file in this folder, or nothing.
        if name in {"", ".", ".."} or Path(name).name != name or "\0" in name:
            raise InvalidInputError(f"the attachment `{name}` of message `{message.id}` has no name for a file")
        place = folder / message.id
        place.mkdir(parents=True, exist_ok=True)
        content = await attached.read()
        (place / name).write_bytes(content)


def _data(message: Message) -> dict[str, Any]:
    import base64

    fields = ("id", "sender", "to", "content_type", "date", "expires", "in_reply_to", "priority", "redelivered")
    data = {name: getattr(message, name) for name in fields}
    data["attachments"] = {name: attached.length for name, attached in message.attachments.items()}
    try:
        return {**data, "text": message.text}
    except UnicodeDecodeError:
        return {**data, "base64": base64.b64encode(message.body).decode()}


def _text(message: Message) -> str:
    from creto._plain import plain

    when = datetime.fromtimestamp(message.date, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    again = "  (delivered before, and not acknowledged)" if message.redelivered else ""
    head = f"{message.id}  {when}  from {message.sender}{again}"
    for name, attached in message.attachments.items():
        head += f"\n  attached: {plain(name)}, {attached.length} bytes"
    try:
        # What an agent wrote must not be able to move the cursor or recolour the terminal.
        return head + "\n" + "\n".join("  " + line for line in plain(message.text, lines=True).splitlines())
    except UnicodeDecodeError:
        return f"{head}\n  {len(message.body)} bytes of {plain(message.content_type)}"
