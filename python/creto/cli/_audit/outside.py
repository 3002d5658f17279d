"""`creto audit serve|publish|witness|cosign`: the ledger as those outside read it and vouch for it."""

from __future__ import annotations

from pathlib import Path

import click

from creto._count import counted
from creto.cli._audit._options import PATH
from creto.cli._frame import Frame, json_option, pass_frame
from creto.errors import NotFoundError

__all__ = ["cosign", "publish", "serve", "witness"]


@click.command()
@click.option("--listen", default="127.0.0.1:8473", show_default=True, help="Address and port to answer on.")
@click.option("--name", default="creto.local/witness", show_default=True, help="What it signs as.")
@click.option("--log", "logs", multiple=True, required=True, help="A log's verifier key (`creto audit keys SHARD`).")
@click.option("--memory", type=PATH, required=True, help="The folder in which it remembers, and keeps its key.")
@json_option
@pass_frame
def witness(frame: Frame, listen: str, name: str, logs: tuple[str, ...], memory: Path) -> None:
    """Be a witness: remember checkpoints of logs, and cosign only what extends them (C2SP tlog-witness).

    Run it where whoever can change the ledger cannot change the memory. Its own verifier key is printed first.

    \b
    Example:
      creto audit witness --log "$(creto audit keys 0000 | head -1)" --memory /var/lib/witness
    """
    from creto.audit._witness import serve

    def told(key: str, port: int) -> None:
        frame.line({"witness": key, "port": port}, f"{key}\nanswering on port {port}; Ctrl-C ends it")

    serve(memory, name, list(logs), listen, told)


@click.command()
@click.argument("url")
@click.option("--witness", "keys", required=True, help="The witness's verifier key, as it prints it.")
@click.option("--out", type=PATH, help="Write the cosigned checkpoints here; `verify --seen` takes them.")
@json_option
@pass_frame
def cosign(frame: Frame, url: str, keys: str, out: Path | None) -> None:
    """Have the witness at URL cosign every shard; exit code 6 where it remembers another history.

    \b
    Example:
      creto audit cosign http://127.0.0.1:8473 --witness creto.local/witness+... --out cosigned
    """
    from creto.audit._witness import cosign as ask

    notes = ask(frame.folder / "ledger", url, keys)
    if out is not None:
        out.write_text("\0".join(notes.values()), encoding="utf-8")
    rows = [(shard, int(note.split("\n")[1])) for shard, note in notes.items()]
    frame.table(["shard", "records"], rows, empty="the ledger has no checkpoint yet")


@click.command()
@click.option("--listen", default="127.0.0.1:8474", show_default=True, help="Address and port to answer on.")
@click.option("--without-records", is_flag=True, help="Hashes and checkpoints only; entries are not served.")
@json_option
@pass_frame
def serve(frame: Frame, listen: str, without_records: bool) -> None:
    """Serve the ledger over HTTP, read-only, to clients of transparency logs (C2SP tlog-tiles).

    Each shard is a log: http://ADDRESS/0000/checkpoint, and its tiles beside that. Nobody is asked who they are, and
    entries are the records themselves: serve them on this machine or behind a proxy that asks, or leave them out.

    \b
    Example:
      creto audit serve --listen 0.0.0.0:8474 --without-records
    """
    from creto.audit._bounded import address
    from creto.audit._serve import serve as answer

    host, _ = address(listen)

    def told(port: int) -> None:
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        frame.line(
            {"url": url, "port": port, "records": not without_records}, f"the ledger is at {url}; Ctrl-C ends it"
        )

    answer(frame.folder / "ledger", listen, told, entries=not without_records)


@click.command()
@click.argument("target")
@click.option("-f", "--follow", is_flag=True, help="Go on with each new checkpoint, of any process, until Ctrl-C.")
@click.option("--every", default=1.0, show_default=True, type=click.FloatRange(0.05), help="Seconds between two looks.")
@json_option
@pass_frame
def publish(frame: Frame, target: str, follow: bool, every: float) -> None:
    """Publish new checkpoints to TARGET: appended to a file, or posted to an http(s) address.

    Keep the file where whoever can change the ledger cannot change it; `creto audit verify --seen FILE` then finds out
    a ledger that was rolled back, forked or written anew.

    \b
    Example:
      creto audit publish /mnt/append-only/checkpoints --follow
    """
    from creto.audit._publish import Publisher

    if "://" not in target and not Path(target).absolute().parent.is_dir():
        raise NotFoundError(f"there is no folder `{Path(target).absolute().parent}` to publish into")
    publisher = Publisher(frame.folder / "ledger", target)
    if not follow:
        count = publisher.publish()
        frame.show({"published": count}, f"published {counted(count, 'checkpoint')} to {target}")
        return

    def told(count: int, trouble: str) -> None:
        if trouble:
            frame.warn(f"{trouble}; it is tried again")
        else:
            frame.line({"published": count}, f"published {counted(count, 'checkpoint')} to {target}")

    publisher.follow(every, told)
