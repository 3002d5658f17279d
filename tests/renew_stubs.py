"""Writes `python/creto/_core.pyi` anew from the native module's own description of itself.

Run: .tools/bin/python tests/renew_stubs.py
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "python" / "creto" / "_core.pyi"
BIN = Path(sys.executable).parent
# What Rust calls a dict or a list says nothing of what is in it; a strict checker wants that said.
BARE = re.compile(r"\b(dict|list|tuple|set)\b(?![\[\w(])(?=[ ,)\]:|=])")
INSIDE = {"dict": "dict[Any, Any]", "list": "list[Any]", "tuple": "tuple[Any, ...]", "set": "set[Any]"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                BIN / "maturin",
                "generate-stubs",
                "--quiet",
                "--profile=fast",
                f"--manifest-path={ROOT / 'rust' / 'python' / 'Cargo.toml'}",
                "--features=pyo3/experimental-inspect",
                f"--out={folder}",
            ],
            check=True,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        text = (Path(folder) / "creto" / "_core.pyi").read_text()
    lines = []
    in_text = False
    # What the module adds when it is imported is written out below, so nothing is left to guess.
    text = text.replace("def __getattr__(name: str) -> Incomplete: ...\n", "").replace("Incomplete, ", "")
    for line in text.splitlines():
        quotes = line.count('"""')
        if not in_text and not quotes:
            line = BARE.sub(lambda found: INSIDE[found[1]], line)  # noqa: PLW2901
            line = re.sub(r"(\*\*?\w+)(?=[,)])", r"\1: Any", line)  # noqa: PLW2901
        lines.append(line)
        in_text ^= quotes % 2 == 1
    TARGET.write_text("\n".join([*lines, *_constants("\n".join(lines))]) + "\n")
    subprocess.run([BIN / "ruff", "check", "--silent", "--fix", "--exit-zero", TARGET], check=True)
    subprocess.run([BIN / "ruff", "format", "-q", TARGET], check=True)


def _constants(text: str) -> list[str]:
    """What the module sets when it is imported, which its description leaves out."""
    from creto import _core

    exported = [f"__all__ = {sorted(_core.__all__)!r}"]
    known = {"tuple": "tuple[str, ...]", "list": "list[str]"}
    return exported + [
        f"{name}: {known.get(type(value).__name__, type(value).__name__)}"
        for name, value in sorted(vars(_core).items())
        if isinstance(value, str | int | list | tuple)
        and (name.isupper() or name == "__version__")
        and f"\n{name}:" not in text
    ]


if __name__ == "__main__":
    main()
