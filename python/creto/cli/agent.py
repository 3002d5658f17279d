"""`creto agent`: make, list, export, import and revoke agents, and let one act for another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from creto._foreign import text_of
from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli._group import Group
from creto.errors import AlreadyExistsError

if TYPE_CHECKING:
    from creto.nhi import Identities, Summary

__all__ = ["command"]


@contextmanager
def identities_of(frame: Frame) -> Iterator[Identities]:
    """The identities of the configured store."""
    from creto.nhi import Identities

    common = frame.settings.common
    with frame.store() as store:
        yield Identities(store, trust_domain=common.trust_domain, suite=common.suite, sealer=frame.sealer())


@click.group(cls=Group)
def command() -> None:
    """Agents: make, list, export, import and revoke them, and let one act for another."""


@command.command()
@click.argument("name")
@click.option("--path", default="", metavar="ORG/TEAM", help="Names above it, organisation first.")
@json_option
@pass_frame
def create(frame: Frame, name: str, path: str) -> None:
    """Make an agent, with keys sealed in the state folder; one that exists is shown.

    \b
    Example:
      creto agent create researcher --path acme/lab
    """
    with identities_of(frame) as identities:
        above = [part for part in path.split("/") if part]
        made = identities.agent(name, path=above)
        if path and list(made.path) != above:
            raise AlreadyExistsError(
                f"`{made.id}` exists already, under `{'/'.join(made.path)}`; an agent's path does not change: "
                "make one of another name"
            )
        _show(frame, identities, name)


@command.command(name="list")
@json_option
@pass_frame
def list_(frame: Frame) -> None:
    """List every agent that is known here.

    \b
    Example:
      creto agent list
    """
    with identities_of(frame) as identities:
        found = identities.agents()
        if frame.json:
            frame.show([_data(summary) for summary in found])
            return
        frame.table(
            ["name", "state", "keys", "suite", "valid until"],
            (
                (
                    summary.id.removeprefix(f"spiffe://{frame.settings.common.trust_domain}/agent/"),
                    summary.state,
                    f"{'here' if summary.own else 'elsewhere'}, generation {summary.generation}",
                    summary.suite,
                    _date(summary.valid_until),
                )
                for summary in found
            ),
            empty="no agents yet; `creto agent create NAME` makes one",
        )


@command.command()
@click.argument("name")
@click.option("--certificates", type=click.Path(path_type=Path), help="Write its X.509-SVIDs here, as PEM.")
@json_option
@pass_frame
def show(frame: Frame, name: str, certificates: Path | None) -> None:
    """Show one agent.

    \b
    Example:
      creto agent show researcher --certificates svid.pem
    """
    with identities_of(frame) as identities:
        _show(frame, identities, name)
        if certificates is not None:
            certificates.write_text("".join(_pem(der) for der in identities.find(name).certificates()))


@command.command()
@click.argument("name")
@json_option
@pass_frame
def rotate(frame: Frame, name: str) -> None:
    """Give an agent new keys; the old ones verify and open for a day, and sign no more.

    \b
    Example:
      creto agent rotate researcher
    """
    with identities_of(frame) as identities:
        identities.rotate_blocking(name)
        _show(frame, identities, name)


@command.command()
@click.argument("name")
@click.option("--reason", default="", help="Recorded.")
@json_option
@pass_frame
def revoke(frame: Frame, name: str, reason: str) -> None:
    """End an agent for good: in every process within a second, and whatever it passed on with it.

    \b
    Example:
      creto agent revoke researcher --reason "keys were on a lost laptop"
    """
    with identities_of(frame) as identities:
        identities.revoke_blocking(name, reason)
        _show(frame, identities, name)


@command.command()
@click.argument("delegator")
@click.argument("delegatee")
@click.option(
    "--policy", type=click.Path(exists=True, path_type=Path), help="Cedar policies that bound it; all, if none."
)
@click.option("--audience", help="Where it counts; this trust domain, if none.")
@click.option("--seconds", default=3600, show_default=True, type=click.IntRange(1), help="How long it holds.")
@click.option("--depth", default=0, show_default=True, type=click.IntRange(0), help="How many further hops may follow.")
@click.option("--chain", type=click.Path(exists=True, path_type=Path), help="The chain that ends at the delegator.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the chain here; else it is printed.")
@json_option
@pass_frame
def delegate(
    frame: Frame,
    delegator: str,
    delegatee: str,
    policy: Path | None,
    audience: str | None,
    seconds: int,
    depth: int,
    chain: Path | None,
    out: Path | None,
) -> None:
    """Let one agent act for another; the chain is one signed statement (DSSE, JSON) a line.

    \b
    Example:
      creto agent delegate planner researcher --policy reads.cedar --seconds 600 --out chain.jsonl
    """
    with identities_of(frame) as identities:
        identities.find(delegator)  # a name that was misspelt makes no agent
        hops = identities.delegate_blocking(
            delegator,
            delegatee,
            attenuation=text_of(policy, policy.read_bytes()) if policy else "permit(principal, action, resource);",
            audience=audience,
            seconds=seconds,
            depth=depth,
            previous=text_of(chain, chain.read_bytes()).splitlines() if chain else (),
        )
    _write(frame, "\n".join(hops) + "\n", out)


@command.command()
@click.argument("names", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), help="Write the bundle here; else it is printed.")
@json_option
@pass_frame
def export(frame: Frame, names: tuple[str, ...], out: Path | None) -> None:
    """Write a bundle of agents' public keys, signed by this trust domain, for others to import.

    \b
    Example:
      creto agent export researcher --out researcher.bundle
    """
    with identities_of(frame) as identities:
        for name in names:
            identities.find(name)  # a name that was misspelt makes no agent
        _write(frame, identities.export(*names) + "\n", out)
        click.echo(f"fingerprint of this trust domain: {identities.domain().verifying_key.fingerprint}", err=True)


@command.command(name="import")
@click.argument("bundle", type=click.File("rb"))
@click.option("--fingerprint", help="Of its trust domain, as the owner told you by another way; needed the first time.")
@json_option
@pass_frame
def import_(frame: Frame, bundle: Any, fingerprint: str | None) -> None:
    """Take in a bundle of agents that another trust domain exported.

    \b
    Example:
      creto agent import researcher.bundle --fingerprint 4f1c...
    """
    with identities_of(frame) as identities:
        found = identities.import_blocking(text_of(Path(bundle.name), bundle.read()), fingerprint=fingerprint)
        frame.show(found, "known now: " + ", ".join(found))


def _show(frame: Frame, identities: Identities, name: str) -> None:
    data = _data(identities.show(name))
    if not frame.json:
        data["valid_until"] = _date(data["valid_until"])
        data["path"] = "/".join(data["path"])
    frame.show(data)


def _data(summary: Summary) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(summary)


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _pem(der: bytes) -> str:
    import base64
    import textwrap

    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def _write(frame: Frame, text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text)
        frame.say(f"wrote {out}")
