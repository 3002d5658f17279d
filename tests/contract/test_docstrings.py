"""Every public name says what it is for, and shows it in an example; `--doctest-modules` runs the examples."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import creto
from creto import _core

# What a machine may lack, or takes minutes to make: shown in README and run by the tests of sandboxes.
NEEDS_A_SANDBOX = {
    "creto.runtime.Box",
    "creto.runtime.Program",
    "creto.runtime.examine",
    "creto.runtime.install_runsc",
}


def public() -> Iterator[tuple[str, Any]]:
    """Each class and function in the `__all__` of a public module, once, by the shortest module that names it."""
    names = ["creto", *(found.name for found in pkgutil.walk_packages(creto.__path__, "creto."))]
    hidden = ("creto.cli", "creto.__main__", "creto.store.migrations")
    seen: set[int] = set()
    for name in sorted(names, key=lambda name: (name.count("."), name)):
        if name.startswith(hidden) or any(part.startswith("_") for part in name.split(".")):
            continue
        module = importlib.import_module(name)
        for member in getattr(module, "__all__", ()):
            value = getattr(module, member)
            if (inspect.isclass(value) or inspect.isroutine(value)) and id(value) not in seen:
                seen.add(id(value))
                yield f"{name}.{member}", value


def has_example(value: Any) -> bool:
    return any(example.source.strip() for example in doctest.DocTestParser().get_examples(inspect.getdoc(value) or ""))


def test_every_public_name_has_an_example() -> None:
    lacking = {name for name, value in public() if not has_example(value)}
    assert lacking - NEEDS_A_SANDBOX == set(), "write an `Example:` into the docstring"
    assert NEEDS_A_SANDBOX - lacking == set(), "it has an example now, or is gone: take it off the list"


def test_every_public_name_is_told_in_one_sentence() -> None:
    """The first line ends as a sentence does, and fits on a line."""
    unlike = []
    for name, value in public():
        first = (inspect.getdoc(value) or "").partition("\n\n")[0]
        if not first or first.splitlines()[-1][-1] not in ".:`)":
            unlike.append(name)
    assert unlike == []


def native() -> Iterator[tuple[str, str]]:
    """The docstrings of the native module that hold an example, by name."""
    for name, value in vars(_core).items():
        members = vars(value) if inspect.isclass(value) else {}
        for member, each in [(name, value), *((f"{name}.{inner}", held) for inner, held in members.items())]:
            if has_example(each):
                yield member, inspect.getdoc(each) or ""


def test_the_examples_of_the_native_module_run() -> None:
    """`--doctest-modules` looks into files of Python alone."""
    told: list[str] = []
    for name, text in native():
        example = doctest.DocTestParser().get_doctest(text, {}, f"creto._core.{name}", None, 0)
        doctest.DocTestRunner(verbose=False).run(example, out=told.append)
    assert told == [], "".join(told)
