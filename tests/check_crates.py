"""Checks the floors of the Rust workspace: each crate depends on those above it and on no other product.

Run: python tests/check_crates.py
"""

from __future__ import annotations

import json
import subprocess
import sys

GROUND = {"creto-crypto", "creto-nhi", "creto-consensus", "creto-enablement-common"}
PLATFORM = {"creto-authz", "creto-audit"}
PRODUCTS = {"creto-metering", "creto-oversight", "creto-runtime", "creto-messaging"}

# Crate -> the crates of this workspace that it may name.
ALLOWED: dict[str, set[str]] = {
    "creto-crypto": set(),
    "creto-consensus": set(),
    "creto-nhi": {"creto-crypto"},
    "creto-enablement-common": {"creto-crypto", "creto-nhi", "creto-consensus"},
    # Platform and products see each other only by the ports of common.
    **dict.fromkeys(PLATFORM | PRODUCTS, GROUND),
    # What policies can do, proved; it reads them as the engine does, and no act goes through it.
    "creto-analysis": GROUND | {"creto-authz"},
    "creto-gate": GROUND | PLATFORM | PRODUCTS,
    "creto-python": GROUND | PLATFORM | PRODUCTS | {"creto-gate", "creto-analysis"},
}
# They measure and fuzz them all, and nothing depends on them.
FREE = {"creto-benches", "creto-fuzz"}
# Foreign crates that one crate alone may name.
ONLY = {"pyo3": "creto-python"}


def faults(metadata: dict[str, object]) -> list[str]:
    """What breaks a floor, one line each.

    Args:
        metadata: What `cargo metadata --no-deps` prints.
    """
    packages: list[dict[str, object]] = metadata["packages"]  # type: ignore[assignment]
    ours = {str(package["name"]) for package in packages}
    found = []
    for package in packages:
        name = str(package["name"])
        if name in FREE:
            continue
        if name not in ALLOWED:
            found.append(f"{name}: no floor is known for it; give it one in tests/check_crates.py")
            continue
        dependencies: list[dict[str, object]] = package["dependencies"]  # type: ignore[assignment]
        for dependency in dependencies:
            other = str(dependency["name"])
            if dependency["kind"] == "dev":
                continue  # a test may hold a crate against another
            if other in ours and other not in ALLOWED[name]:
                found.append(f"{name} names {other}, which is not on a floor above it")
            if other in ONLY and ONLY[other] != name:
                found.append(f"{name} names {other}, which only {ONLY[other]} may")
    return found


def main() -> int:
    """Prints the faults and returns how the process should end."""
    printed = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--format-version", "1", "--offline"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = faults(json.loads(printed))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
