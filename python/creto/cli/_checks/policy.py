"""Policy: that the installed policies deny, ask and allow."""

from __future__ import annotations

from pathlib import Path

from creto._count import counted
from creto.cli._checks import Bench, Check, Missing
from creto.errors import InvalidInputError, SignatureVerificationFailedError

__all__ = ["CHECKS"]


def _denial(bench: Bench) -> str:
    agent = f"spiffe://{bench.settings.common.trust_domain}/agent/doctor"
    unknown = bench.engine.check_nowait(agent, "doctor:nothing", "x")
    if unknown.allowed:
        raise AssertionError("an action that no policy knows was allowed")
    secret = bench.engine.check_nowait(agent, "fs:read", "/etc/shadow", {"path": "/etc/shadow"})
    if secret.allowed:
        raise AssertionError("the starter policy let an agent read /etc/shadow")
    return f"an unknown action and /etc/shadow denied ({secret.reason or secret.policy_id})"


def _installed(bench: Bench) -> str:
    from creto.authz._configured import tried
    from creto.authz._order import require_not_older
    from creto.store import Store

    chosen, engine, warnings = tried(bench.settings)
    if chosen.signed is not None:
        url = bench.settings.common.store_url
        with Store(url.get_secret_value() if url else bench.folder) as store:
            require_not_older(store, chosen.signed)
    source = counted(len(chosen.files), "file") if chosen.files else "the starter set"
    signed = ", signed by a trusted key" if chosen.signed is not None else ""
    noted = f", {len(warnings)} warnings (`creto policy check`)" if warnings else ""
    return f"{source}{signed}, sha256 {(engine.digest or b'').hex()[:12]}{noted}"


def _forged(bench: Bench) -> str:
    from creto import _core
    from creto.authz._signed import sign_files, verify_files

    files = [(Path("a.cedar"), b"permit (principal, action, resource);")]
    signer, other = _core.SigningKey.generate(), _core.SigningKey.generate()
    signature = sign_files(files, signer)
    verify_files(files, signature, [signer.verifying_key])
    for changed, key in (([(Path("a.cedar"), b"")], signer), (files, other)):
        try:
            verify_files(changed, signature, [key.verifying_key])
        except SignatureVerificationFailedError:
            continue
        raise AssertionError("a policy set with a wrong signature was taken in")
    return "a signed set taken in, a changed one and a stranger's refused"


def _proof(bench: Bench) -> str:
    from creto import _core
    from creto.authz import starter_schema
    from creto.authz._solver import solver_command

    try:
        command = solver_command()
    except InvalidInputError as error:
        raise Missing(str(error)) from None
    old = 'permit (principal, action == Action::"fs:read", resource) when { context.path like "src/*" };'
    report = _core.policy_compare(old, old.replace("src", "s"), starter_schema(), command)
    if [(each["before"], each["after"]) for each in report["changes"]] == []:
        raise AssertionError("the solver found no difference between two sets that differ")
    shown = report["changes"][0]["example"]
    return f"found {shown['context']} newly allowed, by `{' '.join(command)}`"


def _hostile(bench: Bench) -> str:
    from creto import _core

    engine = _core.PolicyEngine()
    nested = "permit (principal, action, resource) when { " + "(" * 5000 + "true" + ")" * 5000 + " };"
    try:
        engine.install(nested, None, "[]")
    except InvalidInputError:
        return "5000 nested parentheses refused, process alive"
    raise AssertionError("a policy nested 5000 deep was taken in")


CHECKS = [
    Check("policy", "install the configured set", _installed),
    Check("policy", "a denial", _denial),
    Check("policy", "a signed set, and forged ones", _forged),
    Check("policy", "a proof by the solver", _proof),
    Check("policy", "policy text made to crash the parser", _hostile),
]
