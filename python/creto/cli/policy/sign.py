"""`creto policy sign`, `keys` and `accept`: policy sets that only come into force with a signature."""

from __future__ import annotations

from pathlib import Path

import click

from creto import _core
from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli.policy._sets import FILE
from creto.errors import InvalidInputError

__all__ = ["accept", "command", "keys"]

_LABEL = "policy"


def _key(frame: Frame) -> _core.SigningKey:
    """The key that signs policy sets, made when it is first asked for and sealed in the state folder."""
    from creto.audit._keys import place

    sealer = frame.sealer()
    sealed = frame.folder / "keys" / "policy.sealed"
    if not sealed.exists():
        place(sealed, _core.SigningKey.generate().seal(sealer, _LABEL))
    return _core.SigningKey.unseal(sealed.read_bytes(), sealer, _LABEL)


@click.command("sign")
@click.argument("policies", nargs=-1, type=FILE)
@click.option("--schema", type=FILE, help="The schema, where `authz.schema_file` will name one.")
@click.option("--entities", multiple=True, type=FILE, help="Files of entities, where `authz.entities` will name them.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write the statement.")
@json_option
@pass_frame
def command(
    frame: Frame, policies: tuple[Path, ...], schema: Path | None, entities: tuple[Path, ...], out: Path | None
) -> None:
    """Sign a policy set: these files in this order, or those that the configuration names.

    What is written is an in-toto statement over the files' digests, in DSSE, signed by the key of this state folder;
    `creto policy keys` prints its public half. Where `authz.trusted_keys` names keys, only a set that one of them
    signed (`authz.signature`) comes into force; the one before it serves on otherwise. A set that was signed before the
    one in force is refused too.

    \b
    Example:
      creto policy sign pay.cedar --out pay.cedar.sig
    """
    from creto.authz._signed import sign_files

    settings = frame.settings
    if policies:
        files = [(path, path.read_bytes()) for path in (*policies, *((schema,) if schema else ()))]
        others = [(path, path.read_bytes()) for path in entities]
    else:
        authz = settings.authz
        files = settings.policy_files()
        if not files:
            raise InvalidInputError("there is nothing to sign: name policy files, or set `authz.policies`")
        if authz.schema_file:
            files.append((authz.schema_file, settings.read("authz.schema_file", authz.schema_file)))
        others = settings.files("authz.entities", authz.entities)
    target = out or settings.authz.signature or Path(f"{files[0][0]}.sig")
    # A set that would be refused is not worth a signature.
    _checked(files, schema if policies else settings.authz.schema_file, others)
    files += others
    target.write_text(sign_files(files, _key(frame)) + "\n", encoding="utf-8")
    names = [str(path) for path, _ in files]
    frame.show({"signed": names, "statement": str(target)}, f"signed {', '.join(names)}: wrote {target}")


def _checked(files: list[tuple[Path, bytes]], schema: Path | None, entities: list[tuple[Path, bytes]]) -> None:
    """Installs the set where nobody is asked by it, with its entities, so that what does not fit is told now."""
    from creto._foreign import text_of
    from creto.authz import starter_schema
    from creto.authz._configured import merged
    from creto.authz._entities import entities_of

    policies = "\n".join(text_of(*file) for file in files if file[0] != schema)
    given = merged([], [entity for path, text in entities for entity in entities_of(text, f"`{path}`")])
    _core.PolicyEngine().install(policies, text_of(schema, dict(files)[schema]) if schema else starter_schema(), given)


@click.command("keys")
@json_option
@pass_frame
def keys(frame: Frame) -> None:
    """Print the public half of the key that signs policy sets here, for `authz.trusted_keys`.

    \b
    Example:
      creto policy keys > policy.pub
    """
    public = _key(frame).verifying_key
    frame.show({"fingerprint": public.fingerprint, "key": public.to_text()}, public.to_text())


@click.command("accept")
@click.option("--allow-older", is_flag=True, help="Take the configured set in though a newer one was in force here.")
@click.option("--reason", default="", help="Why, for the record.")
@json_option
@pass_frame
def accept(frame: Frame, allow_older: bool, reason: str) -> None:
    """Say whether the configured signed set may come into force here, and let an older one do so.

    A set that was signed before the one that was last in force is refused: a signature does not say that nothing
    replaced it since. To go back on purpose, put the older files and their signature in place, and run this with
    `--allow-older`; it goes on record, and processes that run take the set in.

    \b
    Example:
      creto policy accept --allow-older --reason "the new set locks the buyers out"
    """
    from creto.authz import _order
    from creto.authz._configured import configured
    from creto.authz._signed import moment

    chosen = configured(frame.settings)
    if chosen.signed is None:
        raise InvalidInputError("`authz.trusted_keys` names no key: no signature is asked for, and no order is kept")
    before = None
    with frame.store() as store:
        if allow_older:
            names = ", ".join(str(path) for path in chosen.files)
            before = _order.allow_older(store, chosen.signed, resource=names, who=frame.who, why=reason)
        else:
            _order.require_not_older(store, chosen.signed)
    text = f"signed at {moment(chosen.signed)}: " + (
        "not older than the set that was last in force here; it may come into force"
        if before is None
        else f"older than the set that was last in force here (signed at {moment(before)}), and allowed back"
    )
    allowed = None if before is None else moment(before)
    frame.show({"signed": moment(chosen.signed), "allowed_back_before": allowed}, text)
