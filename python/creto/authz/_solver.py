"""cvc5 as a program: reads SMT-LIB from standard input, as cvc5's own executable does, over the library that PyPI has.

`python -P -m creto.authz._solver [--tlimit-per=MILLISECONDS]`; other arguments of cvc5 are passed over.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from creto.errors import InvalidInputError

__all__ = ["solver_command"]


def solver_command() -> list[str]:
    """The command that starts the solver: `CVC5` where it is set, the library of PyPI, or `cvc5` on the path.

    Raises:
        InvalidInputError: There is none.
    """
    named = os.environ.get("CVC5")
    if named:
        return [named]
    if find_spec("cvc5") is not None:
        # `-P`: what lies in the folder that the user is in is no module of ours, nor of Python.
        return [sys.executable, "-P", "-m", "creto.authz._solver"]
    found = shutil.which("cvc5")
    if found:
        return [found]
    raise InvalidInputError(
        "proofs need the solver cvc5: run `pip install 'creto[analyze]'`, or set CVC5 to its executable (1.3 or later)"
    )


def _serve(limit: str | None) -> None:
    cvc5: Any = import_module("cvc5")  # an extension module without types

    def fresh() -> tuple[Any, Any, Any]:
        terms = cvc5.TermManager()
        solver = cvc5.Solver(terms)
        if limit:
            solver.setOption("tlimit-per", limit)
        symbols = cvc5.SymbolManager(terms)
        parser = cvc5.InputParser(solver, symbols)
        parser.setIncrementalStringInput(cvc5.InputLanguage.SMT_LIB_2_6, "stdin")
        return solver, symbols, parser

    solver, symbols, parser = fresh()
    pending: list[str] = []
    for line in sys.stdin:
        if line.strip() == "(reset)":
            # Every question begins so. A new solver holds nothing of the one before it, memory included.
            solver, symbols, parser = fresh()
            pending.clear()
            continue
        pending.append(line)
        if line.strip() not in ("(check-sat)", "(get-model)"):
            continue
        parser.appendIncrementalStringInput("".join(pending))
        pending.clear()
        while not (command := parser.nextCommand()).isNull():
            sys.stdout.write(command.invoke(solver, symbols))
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(next((each.partition("=")[2] for each in sys.argv if each.startswith("--tlimit-per=")), None))
