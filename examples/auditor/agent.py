"""Audits the licences of a project's dependencies: a plain program that knows nothing of creto.

It reads lock files and package metadata from the folder it runs in, asks a server which licences are approved, writes a
report, publishes it, and on the way tries two things that it should not be able to do.
"""

import collections
import json
import os
import pathlib
import re
import sys
import tomllib
import urllib.error
import urllib.request

FOLDER = pathlib.Path.cwd()


def rust_packages() -> list[tuple[str, str, str]]:
    """(name, version, licence) of every registry crate in Cargo.lock, the licence from cargo's metadata."""
    locked = tomllib.loads((FOLDER / "Cargo.lock").read_text())["package"]
    metadata = json.loads((FOLDER / "cargo-metadata.json").read_text())["packages"]
    licences = {(p["name"], p["version"]): p["license"] or "unstated" for p in metadata}
    return [
        (p["name"], p["version"], licences.get((p["name"], p["version"]), "not built on this platform"))
        for p in locked
        if "source" in p
    ]


def python_packages() -> list[tuple[str, str, str]]:
    """(name, version, licence) of every pinned requirement, the licence from the installed package's METADATA."""
    found = []
    for line in (FOLDER / "requirements-dev.txt").read_text().splitlines():
        pinned = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", line)
        if not pinned:
            continue
        name, version = pinned.groups()
        metadata = FOLDER / "python-metadata" / f"{re.sub(r'[-_.]+', '-', name).lower()}.txt"
        licence = "not installed here"
        if metadata.exists():
            text = metadata.read_text(errors="replace").split("\n\n", 1)[0]
            stated = [
                *re.findall(r"^License-Expression: (.+)$", text, re.M),
                *re.findall(r"^Classifier: License :: OSI Approved :: (.+)$", text, re.M),
                *re.findall(r"^License: (.{1,40})$", text, re.M),
            ]
            licence = stated[0] if stated else "unstated"
        found.append((name, version, licence))
    return found


def fetch(url: str, body: bytes | None = None) -> str:
    """What a server answers, or why it could not be asked."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=70) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError) as error:
        return f"refused: {getattr(error, 'reason', error)}"


def main() -> None:
    packages = {"crates": rust_packages(), "python": python_packages()}
    total = sum(map(len, packages.values()))
    print(f"read {total} dependencies: {len(packages['crates'])} crates, {len(packages['python'])} Python packages")

    approved = fetch("http://licences.example/approved.json")
    names = set(json.loads(approved)["licences"]) if approved.startswith("{") else set()
    print(f"approved licences, from licences.example: {len(names) or approved}")
    print(f"usage statistics, to telemetry.example: {fetch('http://telemetry.example/collect', b'{}')}")

    secret = pathlib.Path(os.environ.get("AUDITOR_SECRET", "/root/.ssh/id_ed25519"))
    try:
        print(f"a secret outside the folder: {len(secret.read_bytes())} bytes of {secret}")
    except OSError as error:
        print(f"a secret outside the folder, {secret}: {error.strerror}")

    count: collections.Counter[str] = collections.Counter()
    unapproved = []
    for kind, found in packages.items():
        for name, version, licence in found:
            count[licence] += 1
            words = [word for word in re.split(r"\s+(?:OR|AND|WITH)\s+|[()/]+", licence) if word.strip()]
            if names and not any(word.strip() in names for word in words):
                unapproved.append((kind, name, version, licence))
    lines = ["# Licences of the dependencies", "", f"{total} dependencies, {len(count)} licence expressions.", ""]
    lines += ["| licence | dependencies |", "|---|---:|"]
    lines += [f"| {licence} | {n} |" for licence, n in count.most_common()]
    lines += ["", f"{len(unapproved)} have no licence from the approved list:", ""]
    lines += [f"- {name} {version} ({kind}): {licence}" for kind, name, version, licence in unapproved]
    report = "\n".join(lines) + "\n"
    (FOLDER / "report.md").write_text(report)
    print(f"wrote report.md: {len(report)} bytes, {len(count)} licence expressions, {len(unapproved)} not on the list")

    print(f"publish, to publish.example: {fetch('http://publish.example/reports', report.encode())}")

    for answered, (name, version, _) in enumerate(packages["python"]):
        answer = fetch(f"http://licences.example/advisories/{name}/{version}")
        if answer.startswith("refused"):
            print(f"advisories: {answer} after {answered} of {len(packages['python'])} look-ups")
            break
    else:
        print(f"advisories: {len(packages['python'])} look-ups, all answered")


if __name__ == "__main__":
    sys.exit(main())
