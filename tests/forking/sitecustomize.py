"""Have the limited children of this Python be forks, as those of the tests themselves are.

Pythons read a module of this name as they start. Those that tests start with this folder on
PYTHONPATH (child_forks.forking_environment) change nothing before they import what starts limited
children, and then only how these start.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

STARTS_CHILDREN = "merge_ops.children.limited_child"


class ThenForked(Loader):
    """Loads the module, and then has its children forked."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Make the module as its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Run it, and change how it starts programs."""
        self._loader.exec_module(module)

        def start_program(*given: Any) -> Any:
            from tests.child_forks import forked_program  # which imports the module

            return forked_program(*given)

        changed: Any = start_program
        changed.real = module.start_program
        module.start_program = changed


class Finder(MetaPathFinder):
    """Finds that one module, once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the module is, with the loader above."""
        if name != STARTS_CHILDREN:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = ThenForked(spec.loader)
        return spec


sys.meta_path.insert(0, Finder())
