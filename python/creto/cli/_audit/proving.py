"""`creto audit verify|prove|check-proof|keys`: what can be shown of the ledger."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from creto._count import counted
from creto._foreign import text_of
from creto.cli._audit._options import EXISTING, PATH, client
from creto.cli._bar import bar
from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli._public import brought_keys, key_option, ledger_files, ledger_options
from creto.errors import InvalidInputError, NotFoundError

__all__ = ["check_proof", "keys", "prove", "verify"]


@click.command()
@ledger_options
@click.option(
    "--seen", multiple=True, type=EXISTING, help="Checkpoints kept from before; the ledger has to extend them."
)
@click.option("--remember", type=PATH, help="Hold the ledger against what this file keeps, then keep what was found.")
@json_option
@pass_frame
def verify(
    frame: Frame,
    ledger: str | None,
    most_mib: int,
    keys: tuple[Path, ...],
    seen: tuple[Path, ...],
    remember: Path | None,
) -> None:
    """Check every record, tile and signature of every shard; exit code 6 where anything does not fit.

    Whoever can change the folder can change the keys in it, and roll it back as a whole: an auditor brings the keys by
    --key, and the checkpoints of last time by --remember.

    \b
    Example:
      creto audit verify --key creto.pub --remember ~/seen-checkpoints
      creto audit verify --ledger https://ledger.example --key creto.pub
    """
    from creto.audit import _reading

    trusted = brought_keys(frame, keys)
    files = [*seen, *([remember] if remember and remember.exists() else [])]
    notes = [note for file in files for note in _notes(frame, file)]
    with ledger_files(frame, ledger, most_mib) as folder, bar("verifying") as progress:
        verified = _reading.verify(folder, trusted, notes, progress)
        if keys and not verified:
            raise NotFoundError(f"`{folder}` holds no record, so nothing was checked; name the ledger by `--ledger`")
    if remember is not None:
        _remember(remember, "\0".join(shard.note for shard in verified))
    rows = [(v.shard, v.size, v.root, v.origin) for v in verified]
    if frame.json:
        columns = ["shard", "size", "root", "origin", "unsigned"]
        frame.table(columns, [(*row, v.unsigned) for row, v in zip(rows, verified, strict=True)])
        return
    frame.table(["shard", "records", "root", "origin"], rows, empty="the ledger has no record yet")
    if not verified:
        return
    total = sum(v.size for v in verified)
    held = f", extending {counted(len(notes), 'checkpoint')} seen before" if notes else ""
    frame.say(f"as they were signed: {counted(total, 'record')} in {counted(len(verified), 'shard')}{held}")
    if unsigned := sum(v.unsigned for v in verified):
        frame.say(f"not checked: {counted(unsigned, 'record')} on disk that no checkpoint covers yet")


def _notes(frame: Frame, file: Path) -> list[str]:
    notes = [note for note in text_of(file, file.read_bytes()).split("\0") if note.strip()]
    # What a full disk cut off before its first signature says nothing.
    whole = [note for note in notes if "\n\n" in note.lstrip()]
    if len(whole) < len(notes):
        frame.say(f"{file}: {len(notes) - len(whole)} of {len(notes)} checkpoints are not whole, and say nothing")
    return whole


def _remember(file: Path, text: str) -> None:
    """In place of what was remembered before, which stays until this is on disk."""
    from creto.audit._export import in_place_of

    with in_place_of(file) as new, new.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


@click.command()
@click.argument("name")
@click.option("--out", type=PATH, help="Write the proof to this .tlog-proof file, and the record's bytes beside it.")
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

    ledger = client(frame)

    async def main() -> Any:
        return await ledger.prove(name)

    proof = frame.run(main)
    proof.verify(trusted_keys(ledger.folder))
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


@click.command("check-proof")
@click.argument("proof", type=EXISTING)
@click.option("--entry", type=EXISTING, help="The record's bytes; beside the proof, as .cbor, by default.")
@key_option
@json_option
@pass_frame
def check_proof(frame: Frame, proof: Path, entry: Path | None, keys: tuple[Path, ...]) -> None:
    """Check a proof that someone handed over, and show the record that it proves.

    \b
    Example:
      creto audit check-proof line.tlog-proof --key creto.pub
    """
    from creto import _core
    from creto.audit._reading import check

    content = _entry(entry or proof.with_suffix(".cbor"))
    checkpoint = check(text_of(proof, proof.read_bytes()), content, brought_keys(frame, keys))
    record = {n: v for n, v in _core.ledger_decode(content).items() if n not in {"shard", "index"}}
    facts = {"proved": True, **{name: checkpoint[name] for name in ("origin", "size", "root")}}
    if frame.json:
        frame.show({**facts, "record": record})
        return
    frame.show(facts)
    frame.say()
    frame.show({name: value for name, value in record.items() if value not in ("", None, {}, [], ())})


def _entry(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(
            f"the record's bytes are not at `{file}`; `creto audit prove --out` writes them beside the proof: "
            "give them by --entry"
        ) from None


@click.command()
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
