"""Public names of a package whose modules load when a name is first asked for.

A job of the workflow lasts seconds, and loads what it uses: a package that imported all of its modules would load
matplotlib, pandas and scipy's statistics for each of them.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def names_on_demand(package: str, modules: Mapping[str, Sequence[str]]) -> tuple[list[str], Callable[[str], Any]]:
    """What a package assigns to `__all__` and `__getattr__` (PEP 562).

    Args:
        package: its own `__name__`.
        modules: by module below the package, the names that it has. No name may be that of a module: once that is
            loaded, Python gives the module.
    """
    homes = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return sorted(homes), load
