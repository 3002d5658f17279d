"""`creto audit`: read the ledger, check it, prove what is in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from creto._plain import plain
from creto.cli._frame import Frame, json_option, pass_frame
from creto.errors import InvalidInputError

if TYPE_CHECKING:
    from creto.audit import AuditClient, AuditRecord

__all__ = ["command"]

_COLUMNS = ["time", "agent", "action", "resource", "kind", "ended", "why", "act"]
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class _Moment(click.ParamType[datetime]):
    """A time (ISO 8601, local where it names no zone), or how long ago: `90s`, `15m`, `2h`, `7d`, `1w`."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        if value[-1:] in _UNITS and value[:-1].isdecimal():
            return datetime.now(UTC) - timedelta(**{_UNITS[value[-1]]: int(value[:-1])})
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except ValueError:
            self.fail(f"`{value}` is neither a time such as 2026-05-01T12:00 nor how long ago, such as 15m or 7d")


_MOMENT = _Moment()
_PATH = click.Path(path_type=Path)


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which records."""
    for option in (
        click.option("--outcome", type=click.Choice(["success", "failure", "refused"]), help="How it ended."),
        click.option(
            "--kind", type=click.Choice(["intent", "outcome", "refusal", "event"]), help="The moment of the act."
        ),
        click.option("--act", help="The act, 32 hexadecimal digits."),
        click.option("--resource", help="On what; a * at the end for all that begin so."),
        click.option("--action", help="The action; http:* for all that begin so."),
        click.option("--agent", help="Who acts, or for whom: a SPIFFE id, or a name in the trust domain."),
    ):
        function = option(function)
    return function


def _client(frame: Frame) -> AuditClient:
    from creto.audit import AuditClient

    return AuditClient.reading(frame.folder)


def _agent(frame: Frame, name: str | None) -> str | None:
    if name is None or name.startswith("spiffe://"):
        return name
    return f"spiffe://{frame.settings.common.trust_domain}/agent/{name}"


def _row(record: AuditRecord) -> list[Any]:
    return [
        record.time.isoformat(sep=" ", timespec="milliseconds")[:-6],
        record.who.rsplit("/", 1)[-1],
        record.what,
        record.resource,
        record.kind,
        record.ended or None,
        record.why,
        record.act[:12],
    ]


def _line(record: AuditRecord) -> str:
    # What agents wrote is spelt out: nothing in it may steer the terminal.
    time, who, what, resource, kind, ended, why, act = (plain(str(cell or "")) for cell in _row(record))
    colour = {"success": "green", "failure": "yellow", "refused": "red"}.get(ended or "")
    state = click.style(f"{ended or kind:<8}", fg=colour)
    return f"{time}  {state} {who}  {click.style(what, bold=True)} {resource}  {click.style(why, dim=True)}  {act}"


def _plain(record: AuditRecord) -> dict[str, Any]:
    return {
        **{name: record[name] for name in record if name not in {"signature", "covered"}},
        "time": record.time.isoformat(),
        "covered": record.covered,
    }


@contextmanager
def _bar(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _shard, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def progress(shard: str, done: int, total: int) -> None:
            if shard not in tasks:
                tasks[shard] = bar.add_task(f"{what} {shard}", total=total)
            bar.update(tasks[shard], completed=done, total=total)

        yield progress


@click.group()
def command() -> None:
    """Read, verify and prove the ledger: what was done, by whom, why, and how it ended."""


@command.command()
@click.option("-n", "--lines", default=20, show_default=True, type=click.IntRange(0), help="So many records first.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, from any process, until Ctrl-C.")
@_filters
@json_option
@pass_frame
def tail(frame: Frame, /, lines: int, follow: bool, agent: str | None, **filters: Any) -> None:
    """Print the latest records, and with -f those to come.

    \b
    Example:
      creto audit tail -f --action 'http:*'
    """
    client = _client(frame)
    filters["agent"] = _agent(frame, agent)

    async def main() -> None:
        from contextlib import aclosing

        # Followed from before the look back, so that nothing falls between; what was shown is not shown twice.
        shown: set[str] = set()
        async with aclosing(client.follow(from_start=False, **filters)) as coming:
            if lines:
                for record in await client.query(limit=lines, **filters):
                    shown.add(record.id)
                    frame.line(_plain(record), _line(record))
            if follow:
                async for record in coming:
                    if record.id not in shown:
                        frame.line(_plain(record), _line(record))

    frame.run(main)


@command.command()
@click.option("--since", type=_MOMENT, help="Not before: a time, or how long ago (15m, 7d).")
@click.option("--until", type=_MOMENT, help="Before: likewise.")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1), help="At most so many, the latest.")
@_filters
@json_option
@pass_frame
def query(frame: Frame, /, limit: int, agent: str | None, **filters: Any) -> None:
    """Find records, over all shards, in order of time.

    \b
    Example:
      creto audit query --agent researcher --outcome refused --since 1d
    """
    client = _client(frame)
    filters["agent"] = _agent(frame, agent)

    async def main() -> list[AuditRecord]:
        return await client.query(limit=limit, **filters)

    records = frame.run(main)
    if frame.json:
        frame.show([_plain(record) for record in records])
    else:
        frame.table(_COLUMNS, map(_row, records), empty="no record matches")


@command.command()
@click.argument("name")
@click.option("--html", "page", type=_PATH, help="Write a page of the act's life to this file.")
@json_option
@pass_frame
def show(frame: Frame, name: str, page: Path | None) -> None:
    """Show an act, or one record: NAME is its id, or shard/index.

    \b
    Example:
      creto audit show 0000/17
      creto audit show 0e1c... --html act.html
    """
    client = _client(frame)

    async def main() -> list[AuditRecord]:
        return await client.find(name)

    records = frame.run(main)
    if page is not None:
        from creto.audit._page import life

        page.write_text(life(frame.folder, records), encoding="utf-8")
        frame.show({"page": page, "records": len(records)}, f"wrote {page}")
        return
    if frame.json:
        frame.show([_plain(record) for record in records])
        return
    for at, record in enumerate(records):
        if at:
            frame.say()
        frame.show({name: value for name, value in _plain(record).items() if value not in ("", None, {}, ())})


@command.command()
@click.option("--key", "keys", multiple=True, type=_PATH, help="A public key that is trusted (`creto audit keys`).")
@click.option("--seen", multiple=True, type=_PATH, help="Checkpoints kept from before; the ledger has to extend them.")
@click.option("--remember", type=_PATH, help="Hold the ledger against what this file keeps, then keep what was found.")
@json_option
@pass_frame
def verify(frame: Frame, keys: tuple[Path, ...], seen: tuple[Path, ...], remember: Path | None) -> None:
    """Check every record, tile and signature of every shard; exit code 6 where anything does not fit.

    Whoever can change the folder can change the keys in it, and roll it back as a whole: an auditor brings the keys by
    --key, and the checkpoints of last time by --remember.

    \b
    Example:
      creto audit verify --key creto.pub --remember ~/seen-checkpoints
    """
    from creto.audit import trusted_keys

    client = _client(frame)
    trusted = trusted_keys(client.folder, keys)
    files = [*seen, *([remember] if remember and remember.exists() else [])]
    notes = [note for file in files for note in _notes(file)]

    async def main() -> Any:
        with _bar("verifying") as progress:
            return await client.verify(trusted, seen=notes, progress=progress)

    verified = frame.run(main)
    if remember is not None:
        remember.write_text("\0".join(shard.note for shard in verified), encoding="utf-8")
    rows = [(v.shard, v.size, v.root, v.origin) for v in verified]
    if frame.json:
        frame.table(["shard", "size", "root", "origin"], rows)
        return
    frame.table(["shard", "records", "root", "origin"], rows, empty="the ledger has no record yet")
    total = sum(v.size for v in verified)
    held = f", extending {len(notes)} checkpoints seen before" if notes else ""
    frame.say(f"{total} records in {len(verified)} shards are as they were signed{held}")


def _notes(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8")
    return [note for note in text.split("\0") if note.strip()]


@command.command()
@click.argument("name")
@click.option("--out", type=_PATH, help="Write the proof to this .tlog-proof file, and the record's bytes beside it.")
@json_option
@pass_frame
def prove(frame: Frame, name: str, out: Path | None) -> None:
    """Prove that a record is in the ledger: NAME is its id, its act's (the last record then), or shard/index.

    The proof (C2SP tlog-proof) needs the record's bytes and the public key, and nothing else, to be checked.

    \b
    Example:
      creto audit prove 0000/17 --out line.tlog-proof
    """
    from creto.audit import trusted_keys

    client = _client(frame)

    async def main() -> Any:
        return await client.prove(name)

    proof = frame.run(main)
    proof.verify(trusted_keys(client.folder))
    if out is not None:
        out.write_text(proof.text, encoding="utf-8")
        out.with_suffix(".cbor").write_bytes(proof.entry)
    data = {
        "record": f"{proof.record.shard}/{proof.record.index}",
        "origin": proof.origin,
        "size": proof.size,
        "root": proof.root,
        "entry": proof.entry,
        "proof": proof.text,
    }
    frame.show(data, f"wrote {out} and {out.with_suffix('.cbor')}" if out else proof.text)


@command.command("check-proof")
@click.argument("proof", type=_PATH)
@click.option("--entry", type=_PATH, help="The record's bytes; beside the proof, as .cbor, by default.")
@click.option("--key", "keys", multiple=True, type=_PATH, help="A public key that is trusted; else the folder's own.")
@json_option
@pass_frame
def check_proof(frame: Frame, proof: Path, entry: Path | None, keys: tuple[Path, ...]) -> None:
    """Check a proof that someone handed over, and show the record that it proves.

    \b
    Example:
      creto audit check-proof line.tlog-proof --key creto.pub
    """
    from creto import _core
    from creto.audit import trusted_keys
    from creto.audit._reading import check

    content = (entry or proof.with_suffix(".cbor")).read_bytes()
    checkpoint = check(proof.read_text(encoding="utf-8"), content, trusted_keys(frame.folder, keys))
    record = {n: v for n, v in _core.ledger_decode(content).items() if n not in {"shard", "index"}}
    frame.show({"proved": True, **{n: checkpoint[n] for n in ("origin", "size", "root")}, "record": record})


@command.command()
@click.argument("shard", required=False)
@json_option
@pass_frame
def keys(frame: Frame, shard: str | None) -> None:
    """Print the public keys that sign checkpoints; hand them to auditors.

    The first form is for `creto audit verify --key`. With SHARD, also as verifier keys of signed notes, which public
    clients of transparency logs read.

    \b
    Example:
      creto audit keys > creto.pub
    """
    from creto import _core
    from creto.audit import trusted_keys

    trusted = trusted_keys(frame.folder)
    if shard is None:
        texts = [key.to_text() for key in trusted]
        frame.show([{"fingerprint": key.fingerprint, "key": key.to_text()} for key in trusted], "\n".join(texts))
        return
    checkpoint = _core.LedgerShard(frame.folder / "ledger" / shard).checkpoint()
    if checkpoint is None:
        raise InvalidInputError(f"shard `{shard}` has no checkpoint yet")
    notes = [note for key in trusted for note in _core.ledger_verifier_keys(checkpoint["origin"], key)]
    frame.show(notes, "\n".join(notes))


@command.command()
@click.argument("out", type=_PATH)
@click.option("--format", "form", type=click.Choice(["jsonl", "csv", "parquet"]), help="By default what OUT ends in.")
@click.option("--since", type=_MOMENT, help="Not before: a time, or how long ago (15m, 7d).")
@click.option("--until", type=_MOMENT, help="Before: likewise.")
@_filters
@json_option
@pass_frame
def export(frame: Frame, /, out: Path, form: str | None, agent: str | None, **filters: Any) -> None:
    """Write records to OUT as JSON Lines, CSV or Parquet (needs creto[duckdb]), in order of time.

    \b
    Example:
      creto audit export acts.csv --since 30d
    """
    from creto.audit._export import export as write

    client = _client(frame)
    filters["agent"] = _agent(frame, agent)
    chosen = form or out.suffix.lstrip(".").lower()
    count = write(client, out, chosen, filters)
    frame.show({"file": out, "records": count}, f"wrote {count} records to {out}")


@command.command()
@click.option("--listen", default="127.0.0.1:8473", show_default=True, help="Address and port to answer on.")
@click.option("--name", default="creto.local/witness", show_default=True, help="What it signs as.")
@click.option("--log", "logs", multiple=True, required=True, help="A log's verifier key (`creto audit keys SHARD`).")
@click.option("--memory", type=_PATH, required=True, help="The folder in which it remembers, and keeps its key.")
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


@command.command()
@click.argument("url")
@click.option("--witness", "keys", required=True, help="The witness's verifier key, as it prints it.")
@click.option("--out", type=_PATH, help="Write the cosigned checkpoints here; `verify --seen` takes them.")
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


@command.command()
@click.argument("subject")
@click.option("--yes", is_flag=True, help="Do not ask again.")
@json_option
@pass_frame
def erase(frame: Frame, subject: str, yes: bool) -> None:
    """Erase a person: what records say about SUBJECT becomes unreadable, in every copy, for good.

    Records and proofs stay as they are; that it was done is recorded, under the person's pseudonym.

    \b
    Example:
      creto audit erase ann@example.org
    """
    from creto import _core
    from creto.audit import Subjects, open_ledger

    if not yes:
        click.confirm(f"make all that is recorded about `{subject}` unreadable for good?", abort=True)
    sealer = _core.Sealer.open(frame.folder / "keys")
    subjects = Subjects(frame.folder, sealer)
    pseudonym = subjects.pseudonym(subject)
    erased = subjects.erase(subject)
    if erased:
        clock = _core.HybridLogicalClock(frame.folder / "clock")
        ledger = open_ledger(frame.folder, clock, sealer, trust_domain=frame.settings.common.trust_domain)
        try:
            ledger.append_blocking({"who": "creto", "what": "subject:erase", "resource": pseudonym, "why": "asked for"})
        finally:
            ledger.close_blocking()
    text = "erased" if erased else "nothing is known of this subject, or it was erased before"
    frame.show({"erased": erased, "pseudonym": pseudonym}, text)
