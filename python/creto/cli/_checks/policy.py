"""Policy: that the installed policies deny, ask and allow."""

from __future__ import annotations

from creto.cli._checks import Bench, Check
from creto.errors import InvalidInputError

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
    from creto import _core
    from creto.authz import starter, starter_schema

    files = bench.settings.policy_files()
    schema = bench.settings.authz.schema_file
    text = "\n".join(content.decode() for _, content in files) if files else starter()
    engine = _core.PolicyEngine()
    digest, warnings = engine.install(
        text, bench.settings.read("authz.schema_file", schema).decode() if schema else starter_schema(), "[]"
    )
    noted = f", {len(warnings)} warnings (`creto policy check`)" if warnings else ""
    return (
        f"{len(files)} files" * bool(files) + "the starter set" * (not files) + f", sha256 {digest.hex()[:12]}{noted}"
    )


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
    Check("policy", "policy text made to crash the parser", _hostile),
]
