"""Public names that are loaded when first used (PEP 562), so that importing a package costs next to nothing."""

TYPE_CHECKING = False  # typing's own import would cost half of ours
if TYPE_CHECKING:
    from collections.abc import Callable


def lazily(package: str, homes: "dict[str, str]") -> "tuple[Callable[[str], object], Callable[[], list[str]]]":
    """Give `package` its `__getattr__` and `__dir__`.

    Args:
        package: the package's `__name__`.
        homes: each public name and the module that defines it.

    Returns:
        The two functions, to be assigned at the package's top level.

    Example:
        >>> attribute, names = lazily("numbers", {"Decimal": "decimal"})
        >>> names(), attribute("Decimal")
        (['Decimal'], <class 'decimal.Decimal'>)
    """

    def attribute(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module `{package}` has no attribute `{name}`")
        from importlib import import_module

        value: object = getattr(import_module(home), name)
        setattr(import_module(package), name, value)
        return value

    return attribute, lambda: sorted(homes)
